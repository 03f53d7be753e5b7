// The tensors of a checkpoint, whatever its files are, under the names that Hugging Face gives
// them.
#pragma once

#include <c10/core/ScalarType.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "erank/data/gguf.h"
#include "erank/data/safetensors.h"
#include "erank/model/config.h"

namespace erank::model {

struct TensorShape {
  std::string name;
  std::vector<int64_t> shape;
};

// Every parameter of a checkpoint of this configuration, in the order in which files list them. A
// tied head is not listed.
std::vector<TensorShape> parameter_shapes(const ModelConfig& config);

// The open files of one checkpoint. Immutable; thread-safe.
class Checkpoint {
 public:
  // A folder with model.safetensors or its shards, one .safetensors file, or a .gguf file. Throws
  // Error as the readers do, and Error{kCorrupt} for a tensor that two shards hold or whose element
  // type holds no weights.
  static Checkpoint open(const std::string& path);

  struct Entry {
    std::string name;              // Hugging Face's name
    std::string file;              // for messages: the file's path
    const data::TensorInfo* info;  // as the file has it
    const base::MappedFile* map;
    // Over 0: in each of so many heads of D rows, row i is followed by row i + D / 2, as
    // llama.cpp's RoPE expects q and k of the llama architecture.
    int64_t permuted_heads = 0;
    // Of a matrix of int8 or 8-bit floats: the tensor of its scales, and how many rows and columns
    // share one. It has the scales of the blocks, row by row.
    const data::TensorInfo* scale = nullptr;
    const base::MappedFile* scale_map = nullptr;
    std::array<int64_t, 2> scale_block = {1, 1};
  };
  const std::vector<Entry>& entries() const { return entries_; }
  const Entry* find(const std::string& name) const;
  bool is_gguf() const { return !ggufs_.empty(); }
  bool has_int8() const;  // whether a matrix is int8
  const std::string& path() const { return path_; }

 private:
  void join_scales();

  std::string path_;
  // Pointers into these stay valid: the vectors do not grow after open.
  std::vector<data::SafetensorsFile> safetensors_;
  std::vector<data::GgufFile> ggufs_;
  std::vector<Entry> entries_;
  std::map<std::string, size_t> index_;
};

// Throws Error{kCorrupt} "file: tensor 'x' has shape [5, 3], expected [5, 4]" unless they are
// equal.
void check_shape(const Checkpoint::Entry& entry, const std::vector<int64_t>& expected,
                 const char* where);

// Takes rows of a tensor: `values` are num_rows rows of `dtype` (kFloat or kBFloat16), rounded once
// to nearest even, in Hugging Face's order, valid during the call. A tensor of one dimension has
// rows of one value.
using TakeRows = std::function<void(int64_t first_row, const void* values, int64_t num_rows)>;

// Gives `take` rows [begin, end) in pieces, in order, on this thread; their pages of the map are
// released afterwards.
void read_rows(const Checkpoint::Entry& entry, at::ScalarType dtype, int64_t begin, int64_t end,
               const TakeRows& take);
// The same rows as the file has them, undone of a permutation alone.
void read_stored_rows(const Checkpoint::Entry& entry, int64_t begin, int64_t end,
                      const TakeRows& take);
// All rows, in parallel, in any order: `take` must be thread-safe.
void for_each_rows(const Checkpoint::Entry& entry, at::ScalarType dtype, const TakeRows& take);

// Whether two tensors of equal shape hold the same values in fp32. `rounded`: or where a's rounded
// to the element type of b are b's.
bool equal_values(const Checkpoint::Entry& a, const Checkpoint::Entry& b, bool rounded = false);

// Rows of so many values that are a thread's piece of work: large enough to hide the cost of
// handing it out, small enough that those of all threads together weigh nothing.
int64_t block_rows(int64_t row_values);

// "[5, 3]"
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace erank::model
