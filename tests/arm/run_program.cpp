// run_program MODEL.pte TYPE SIZE…: run a program of ExecuTorch's on the input of this TYPE (float32 or uint8) and shape that standard
// input holds, and write its output to standard output. Linked to the libraries of ExecuTorch's wheel; it needs neither Python nor PyTorch.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::extension::Module;
using executorch::extension::from_blob;
using executorch::runtime::Program;

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "run_program MODEL.pte TYPE SIZE…\n");
    return 2;
  }
  const bool bytes = std::strcmp(argv[2], "uint8") == 0;
  std::vector<SizesType> shape;
  size_t count = bytes ? 1 : sizeof(float);
  for (int i = 3; i < argc; ++i) {
    shape.push_back(std::atoi(argv[i]));
    count *= shape.back();
  }
  std::vector<char> input(count);
  if (std::fread(input.data(), 1, count, stdin) != count) {
    std::fprintf(stderr, "standard input is shorter than the shape\n");
    return 2;
  }
  Module module(argv[1]);
  if (module.load(Program::Verification::InternalConsistency) != executorch::runtime::Error::Ok) {
    std::fprintf(stderr, "cannot load %s\n", argv[1]);
    return 3;
  }
  auto given = from_blob(input.data(), shape, bytes ? ScalarType::Byte : ScalarType::Float);
  auto found = module.forward(given);
  if (!found.ok()) {
    std::fprintf(stderr, "cannot run %s: error %d\n", argv[1], static_cast<int>(found.error()));
    return 3;
  }
  const auto output = found.get()[0].toTensor();
  return std::fwrite(output.const_data_ptr(), 1, output.nbytes(), stdout) != output.nbytes();
}
