// The five most likely classes of a picture: classify BUNDLE PICTURE.ppm
//
// Needs ONNX Runtime's C++ headers and library, and nlohmann/json. Pictures are binary PPM (P6), so that no image library
// hides how they are prepared: convert picture.jpg -auto-orient picture.ppm
//
//   g++ -std=c++17 -O2 classify.cpp -I ORT/include -L ORT/lib -lonnxruntime -o classify

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <onnxruntime_cxx_api.h>

struct Image {
    int width, height;
    std::vector<uint8_t> rgb;  // height · width · 3
};

Image read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    int width = 0, height = 0, most = 0;
    if (!(file >> kind >> width >> height >> most) || kind != "P6" || most != 255 || width < 1 || height < 1)
        throw std::runtime_error(path + " is not a binary PPM file with 8 bits a channel");
    file.get();  // one white space ends the header
    Image image{width, height, std::vector<uint8_t>(size_t(width) * height * 3)};
    if (!file.read(reinterpret_cast<char*>(image.rgb.data()), image.rgb.size()))
        throw std::runtime_error(path + " is cut off");
    return image;
}

double bicubic(double x) {
    x = std::abs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * -0.5;
    return 0;
}

// One direction of docs/preprocessing.md, step 5. The other direction is the same on the transposed image.
Image resample_rows(const Image& in, float from, float to, int width) {
    if (width == in.width && from == 0 && to == width) return in;
    const double scale = double(to - from) / width, widen = std::max(scale, 1.0), support = 2 * widen;
    Image out{width, in.height, std::vector<uint8_t>(size_t(width) * in.height * 3)};
    for (int x = 0; x < width; x++) {
        const double center = from + (x + 0.5) * scale;
        const int first = std::max(int(center - support + 0.5), 0), last = std::min(int(center + support + 0.5), in.width);
        std::vector<double> exact;
        for (int i = first; i < last; i++) exact.push_back(bicubic((i - center + 0.5) * (1 / widen)));
        const double sum = std::accumulate(exact.begin(), exact.end(), 0.0);
        std::vector<int> weights;
        for (double k : exact) weights.push_back(int(std::trunc(k / sum * (1 << 22) + (k / sum < 0 ? -0.5 : 0.5))));
        for (int y = 0; y < in.height; y++)
            for (int c = 0; c < 3; c++) {
                int value = 1 << 21;
                for (int i = first; i < last; i++) value += in.rgb[(size_t(y) * in.width + i) * 3 + c] * weights[i - first];
                out.rgb[(size_t(y) * width + x) * 3 + c] = uint8_t(std::clamp(value >> 22, 0, 255));
            }
    }
    return out;
}

Image transposed(const Image& in) {
    Image out{in.height, in.width, std::vector<uint8_t>(in.rgb.size())};
    for (int y = 0; y < in.height; y++)
        for (int x = 0; x < in.width; x++)
            for (int c = 0; c < 3; c++)
                out.rgb[(size_t(x) * in.height + y) * 3 + c] = in.rgb[(size_t(y) * in.width + x) * 3 + c];
    return out;
}

// As the model sees it: (3, height, width).
std::vector<float> prepare(const Image& image, const nlohmann::json& steps, int height, int width) {
    if (steps["resize"] != "shorter" || steps["interpolation"] != "bicubic" || steps["channel_order"] != "RGB")
        throw std::runtime_error("this program resizes by the shorter side, with the bicubic filter, in colour alone");
    double box_w = image.width, box_h = image.height;
    const double shape = double(width) / height, fraction = steps["crop_fraction"];
    if (double(image.width) / image.height >= shape) box_w = shape * image.height;
    else box_h = image.width / shape;
    box_w *= fraction, box_h *= fraction;
    const double left = (image.width - box_w) * 0.5, top = (image.height - box_h) * 0.5;
    const Image narrow = resample_rows(image, float(left), float(left + box_w), width);
    const Image seen = transposed(resample_rows(transposed(narrow), float(top), float(top + box_h), height));
    const float scale = steps["scale"];
    std::vector<float> input(size_t(3) * height * width);
    for (int c = 0; c < 3; c++) {
        const float mean = steps["mean"][c], std = steps["std"][c];
        for (int i = 0; i < height * width; i++) input[size_t(c) * height * width + i] = (seen.rgb[size_t(i) * 3 + c] * scale - mean) / std;
    }
    return input;
}

int run(const std::string& bundle, const std::string& picture) {
    std::ifstream file(bundle + "/manifest.json");
    if (!file) throw std::runtime_error(bundle + " has no manifest.json: expected a bundle, as s2mlp-export makes it");
    const auto manifest = nlohmann::json::parse(file);
    if (manifest["input"]["dtype"] != "float32" || manifest["interface"]["input"] != "float" || manifest["interface"]["output"] != "logits")
        throw std::runtime_error(bundle + " must take float32 images and give logits");
    const int height = manifest["spec"]["image_size"][0], width = manifest["spec"]["image_size"][1];
    auto input = prepare(read_ppm(picture), manifest["preprocessing"], height, width);

    Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "classify");
    env.DisableTelemetryEvents();
    const std::string model = bundle + "/" + manifest["artifact"].get<std::string>();
    Ort::Session session(env, model.c_str(), Ort::SessionOptions{});
    const int64_t dimensions[] = {1, 3, height, width};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto tensor = Ort::Value::CreateTensor<float>(memory, input.data(), input.size(), dimensions, 4);
    const std::string in = manifest["input"]["name"], out = manifest["output"]["name"];
    const char *ins[] = {in.c_str()}, *outs[] = {out.c_str()};
    const auto answers = session.Run(Ort::RunOptions{nullptr}, ins, &tensor, 1, outs, 1);
    const float* values = answers[0].GetTensorData<float>();
    std::vector<float> logits(values, values + manifest["spec"]["classes"].get<int>());
    if (logits.size() == 1) logits.insert(logits.begin(), 0.0f);  // one logit tells two classes apart

    const int classes = int(logits.size());
    std::vector<int> order(classes);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    double sum = 0;
    for (int i : order) sum += std::exp(double(logits[i]) - logits[order[0]]);
    for (int rank = 0; rank < std::min(classes, 5); rank++) {
        const int i = order[rank];
        const std::string label = manifest["labels"].is_null() ? "class " + std::to_string(i) : manifest["labels"][i].get<std::string>();
        std::printf("%7.1f%%  %s\n", 100 * std::exp(double(logits[i]) - logits[order[0]]) / sum, label.c_str());
    }
    return 0;
}

int main(int count, char** arguments) {
    if (count != 3) return std::fprintf(stderr, "usage: classify BUNDLE PICTURE.ppm\n"), 2;
    try {
        return run(arguments[1], arguments[2]);
    } catch (const std::exception& error) {
        return std::fprintf(stderr, "%s\n", error.what()), 1;
    }
}
