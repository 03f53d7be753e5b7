// Any bytes as a safetensors file: one Error, or tensors that lie inside the file.
#include "erank/data/safetensors.h"

#include "erank/base/error.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace erank;
  static const fuzz::MemoryFile file("safetensors");
  try {
    const auto opened = data::SafetensorsFile::open(file.hold(data, size));
    size_t total = 0, sum = 0;
    for (const data::TensorInfo& tensor : opened.tensors()) {
      const auto bytes = opened.bytes(tensor);
      fuzz::demand(tensor.begin <= tensor.end && tensor.end <= size);
      fuzz::demand(data::tensor_bytes(tensor.dtype, tensor.shape) == bytes.size());
      total += bytes.size();
      for (const uint8_t byte : bytes) sum += byte;  // reads every byte
    }
    fuzz::demand(total <= size && sum <= 255 * total);  // no byte belongs to two tensors
  } catch (const base::Error&) {
  }
  return 0;
}
