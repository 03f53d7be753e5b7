// Which files a model is read from, and what tells one model from another.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace erank::rank {

// FNV-1a over texts and where each ends.
class Digest {
 public:
  void add(std::string_view text);
  std::string hex() const;

 private:
  uint64_t hash_ = 0xcbf29ce484222325ull;
};

// The files and folders that `model`, as --model names it, is read from. Throws as find_checkpoint
// does.
std::vector<std::string> paths_of_model(const std::string& model);

// Where the calibration of `model` lies, if it has one: calibration.json in its folder, or
// NAME.gguf.calibration.json beside a file. Throws as find_checkpoint does.
std::string calibration_of_model(const std::string& model);

// `path` with the other parts of a split GGUF, or those files in it that a model may consist of;
// sorted. No fault where nothing is.
std::vector<std::string> model_files(const std::string& path);

// Of the sizes and bytes of the files that model_files() gives for each path, and of their names in
// a folder; a file that is named itself may be called otherwise. Of weights (.gguf, .safetensors)
// over a megabyte 256 blocks of 4 KiB spread over the file are read, of others all. A path where
// nothing is counts as such; of a Parquet file in parts all parts count.
std::string files_digest(const std::vector<std::string>& paths);

// Of the size and bytes of one file or of all its parts (data::parquet_parts), wherever it lies,
// read as files_digest() reads. Throws Error{kNotFound} where none is.
std::string file_digest(const std::string& path);

// Of the size and every byte of one file. Throws Error{kNotFound}.
std::string content_digest(const std::string& path);

// Of the weights and the tokenizer in `weights` (Checkpoint::weights) wherever they lie: of a
// .gguf file, or of the names and bytes of a folder's *.safetensors (an adapter's left out),
// config.json, and the tokenizer's files. Of a file over 256 MiB the size, the first MiB and 1024
// blocks of 4 KiB are read.
std::string weights_digest(const std::string& weights);

// Throws Error{kInvalidInput} when one of `targets`, which are to be written or removed, is one of
// the files that are read: "-" is stdin or stdout, "" is none, an input folder is a model's.
void refuse_inputs(const std::vector<std::string>& targets, const std::vector<std::string>& inputs);

}  // namespace erank::rank
