// The classes of a picture on iOS and macOS, most likely first. Swift package: microsoft/onnxruntime-swift-package-manager.

import CoreGraphics
import Foundation
import OnnxRuntimeBindings

struct Manifest: Decodable {
    struct Steps: Decodable {
        let resize, interpolation, channel_order: String
        let crop_fraction, scale: Double
        let mean, std: [Double]
    }
    struct Spec: Decodable { let image_size: [Int] }
    struct Tensor: Decodable { let name: String }
    let artifact: String
    let preprocessing: Steps
    let spec: Spec
    let input, output: Tensor
    let labels: [String]?
}

enum Problem: Error { case unknownPreparation, noPixels }

final class Classifier {
    private let manifest: Manifest
    private let environment: ORTEnv
    private let session: ORTSession

    init(bundle: URL) throws {
        manifest = try JSONDecoder().decode(Manifest.self, from: Data(contentsOf: bundle.appendingPathComponent("manifest.json")))
        setenv("ORT_DISABLE_TELEMETRY", "1", 0)
        environment = try ORTEnv(loggingLevel: .warning)
        let model = bundle.appendingPathComponent(manifest.artifact).path
        session = try ORTSession(env: environment, modelPath: model, sessionOptions: ORTSessionOptions())
    }

    /// Labels and probabilities of `picture`, which must be upright.
    func classify(_ picture: CGImage) throws -> [(label: String, probability: Double)] {
        let input = try prepare(picture)
        let data = NSMutableData(bytes: input, length: input.count * MemoryLayout<Float>.stride)
        let shape = [1, 3] + manifest.spec.image_size
        let value = try ORTValue(tensorData: data, elementType: .float, shape: shape.map { NSNumber(value: $0) })
        let answer = try session.run(
            withInputs: [manifest.input.name: value], outputNames: [manifest.output.name], runOptions: nil)
        let logits = try answer[manifest.output.name]!.tensorData() as Data
        var values = logits.withUnsafeBytes { Array($0.bindMemory(to: Float.self)).map(Double.init) }
        if values.count == 1 { values.insert(0, at: 0) }  // one logit tells two classes apart
        let most = values.max() ?? 0
        let weights = values.map { exp($0 - most) }
        let sum = weights.reduce(0, +)
        return weights.enumerated()
            .map { (manifest.labels?[$0.offset] ?? "class \($0.offset)", $0.element / sum) }
            .sorted { $0.1 > $1.1 }
    }

    /// docs/preprocessing.md, for `shorter` and `bicubic`.
    private func prepare(_ picture: CGImage) throws -> [Float] {
        let steps = manifest.preprocessing
        guard steps.resize == "shorter", steps.interpolation == "bicubic", steps.channel_order == "RGB" else {
            throw Problem.unknownPreparation
        }
        let (w, h) = (picture.width, picture.height)
        let (height, width) = (manifest.spec.image_size[0], manifest.spec.image_size[1])
        // Its own colour space, so that no colour is converted; transparency is blended with black here.
        var bytes = [UInt8](repeating: 0, count: w * h * 4)
        let space = picture.colorSpace?.model == .rgb ? picture.colorSpace! : CGColorSpaceCreateDeviceRGB()
        guard let context = CGContext(
            data: &bytes, width: w, height: h, bitsPerComponent: 8, bytesPerRow: w * 4, space: space,
            bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue) else { throw Problem.noPixels }
        context.draw(picture, in: CGRect(x: 0, y: 0, width: w, height: h))

        let shape = Double(width) / Double(height)
        let wide = Double(w) / Double(h) >= shape
        let boxW = (wide ? shape * Double(h) : Double(w)) * steps.crop_fraction
        let boxH = (wide ? Double(h) : Double(w) / shape) * steps.crop_fraction
        let (left, top) = ((Double(w) - boxW) * 0.5, (Double(h) - boxH) * 0.5)
        var input: [Float] = []
        for c in 0..<3 {
            let plane = (0..<w * h).map { Int(bytes[$0 * 4 + c]) }
            let narrow = resampleRows(plane, w, h, Float(left), Float(left + boxW), width)
            let seen = resampleRows(transposed(narrow, width, h), h, width, Float(top), Float(top + boxH), height)
            let (scale, mean, std) = (Float(steps.scale), Float(steps.mean[c]), Float(steps.std[c]))
            input += transposed(seen, height, width).map { (Float($0) * scale - mean) / std }
        }
        return input
    }

    private func bicubic(_ distance: Double) -> Double {
        let x = abs(distance)
        return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0
    }

    private func resampleRows(_ plane: [Int], _ w: Int, _ h: Int, _ from: Float, _ to: Float, _ out: Int) -> [Int] {
        if out == w && from == 0 && to == Float(out) { return plane }
        let scale = Double(to - from) / Double(out)
        let widen = max(scale, 1)
        var result = [Int](repeating: 0, count: out * h)
        for x in 0..<out {
            let center = Double(from) + (Double(x) + 0.5) * scale
            let first = max(Int(center - 2 * widen + 0.5), 0), last = min(Int(center + 2 * widen + 0.5), w)
            let exact = (first..<last).map { bicubic((Double($0) - center + 0.5) * (1 / widen)) }
            let sum = exact.reduce(0, +)
            let weights = exact.map { Int(($0 / sum * Double(1 << 22) + ($0 / sum < 0 ? -0.5 : 0.5)).rounded(.towardZero)) }
            for y in 0..<h {
                let value = weights.indices.reduce(1 << 21) { $0 + plane[y * w + first + $1] * weights[$1] }
                result[y * out + x] = min(max(value >> 22, 0), 255)
            }
        }
        return result
    }

    private func transposed(_ plane: [Int], _ w: Int, _ h: Int) -> [Int] {
        (0..<w * h).map { plane[$0 % h * w + $0 / h] }
    }
}
