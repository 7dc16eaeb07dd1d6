// The classes of a picture on Android, most likely first. Gradle: implementation("com.microsoft.onnxruntime:onnxruntime-android:1.22.0")
// The bundle lies in the app's assets: open(context.assets, "fashion_mnist-onnx-fp32").

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import android.content.res.AssetManager
import android.graphics.Bitmap
import java.nio.FloatBuffer
import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.max
import kotlin.math.min
import org.json.JSONObject

class Classifier private constructor(private val manifest: JSONObject, private val session: OrtSession) : AutoCloseable {
    private val steps = manifest.getJSONObject("preprocessing")
    private val height = manifest.getJSONObject("spec").getJSONArray("image_size").getInt(0)
    private val width = manifest.getJSONObject("spec").getJSONArray("image_size").getInt(1)

    companion object {
        fun open(assets: AssetManager, bundle: String): Classifier {
            val manifest = JSONObject(assets.open("$bundle/manifest.json").bufferedReader().readText())
            val model = assets.open("$bundle/${manifest.getString("artifact")}").readBytes()
            val environment = OrtEnvironment.getEnvironment()
            environment.setTelemetry(false)
            return Classifier(manifest, environment.createSession(model))
        }
    }

    /** Labels and probabilities of [picture], which must be upright (ExifInterface tells how a camera held it). */
    fun classify(picture: Bitmap): List<Pair<String, Double>> {
        val environment = OrtEnvironment.getEnvironment()
        val shape = longArrayOf(1, 3, height.toLong(), width.toLong())
        val answer = OnnxTensor.createTensor(environment, FloatBuffer.wrap(prepare(picture)), shape).use { input ->
            session.run(mapOf(manifest.getJSONObject("input").getString("name") to input)).use { result ->
                @Suppress("UNCHECKED_CAST")
                (result[0].value as Array<FloatArray>)[0]
            }
        }
        val logits = if (answer.size == 1) floatArrayOf(0f, answer[0]) else answer // one logit tells two classes apart
        val most = logits.maxOf { it.toDouble() }
        val weights = logits.map { exp(it - most) }
        val labels = manifest.optJSONArray("labels")
        return weights.mapIndexed { i, weight -> (labels?.getString(i) ?: "class $i") to weight / weights.sum() }
            .sortedByDescending { it.second }
    }

    /** docs/preprocessing.md, for `shorter` and `bicubic`. Bitmap.createScaledBitmap does not do: it does not widen its filter. */
    private fun prepare(picture: Bitmap): FloatArray {
        require(steps.getString("resize") == "shorter" && steps.getString("interpolation") == "bicubic")
        require(steps.getString("channel_order") == "RGB")
        val (w, h) = picture.width to picture.height
        val shape = width.toDouble() / height
        val fraction = steps.getDouble("crop_fraction")
        val boxW = (if (w.toDouble() / h >= shape) shape * h else w.toDouble()) * fraction
        val boxH = (if (w.toDouble() / h >= shape) h.toDouble() else w / shape) * fraction
        val (left, top) = (w - boxW) * 0.5 to (h - boxH) * 0.5
        val colours = IntArray(w * h).also { picture.getPixels(it, 0, w, 0, 0, w, h) }
        val input = FloatArray(3 * height * width)
        for (c in 0 until 3) {
            val plane = IntArray(w * h) { colours[it] shr (16 - 8 * c) and 0xff }
            val narrow = resampleRows(plane, w, h, left.toFloat(), (left + boxW).toFloat(), width)
            val seen = resampleRows(transposed(narrow, width, h), h, width, top.toFloat(), (top + boxH).toFloat(), height)
            val (mean, std) = listOf("mean", "std").map { steps.getJSONArray(it).getDouble(c).toFloat() }
            val scale = steps.getDouble("scale").toFloat()
            val pixels = transposed(seen, height, width)
            for (i in pixels.indices) input[c * height * width + i] = (pixels[i] * scale - mean) / std
        }
        return input
    }

    private fun bicubic(distance: Double): Double {
        val x = abs(distance)
        return if (x < 1) (1.5 * x - 2.5) * x * x + 1 else if (x < 2) (((x - 5) * x + 8) * x - 4) * -0.5 else 0.0
    }

    private fun resampleRows(plane: IntArray, w: Int, h: Int, from: Float, to: Float, out: Int): IntArray {
        if (out == w && from == 0f && to == out.toFloat()) return plane
        val scale = (to - from).toDouble() / out
        val widen = max(scale, 1.0)
        val result = IntArray(out * h)
        for (x in 0 until out) {
            val center = from + (x + 0.5) * scale
            val first = max((center - 2 * widen + 0.5).toInt(), 0)
            val last = min((center + 2 * widen + 0.5).toInt(), w)
            val exact = (first until last).map { bicubic((it - center + 0.5) * (1 / widen)) }
            val sum = exact.sum()
            val weights = exact.map { k -> (k / sum * (1 shl 22) + if (k / sum < 0) -0.5 else 0.5).toInt() }
            for (y in 0 until h) {
                val value = weights.indices.fold(1 shl 21) { total, i -> total + plane[y * w + first + i] * weights[i] }
                result[y * out + x] = (value shr 22).coerceIn(0, 255)
            }
        }
        return result
    }

    private fun transposed(plane: IntArray, w: Int, h: Int) = IntArray(w * h) { plane[it % h * w + it / h] }

    override fun close() = session.close()
}
