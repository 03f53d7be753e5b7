// Where a network's weights come from: a checkpoint's files or Parameters in memory. An adapter is
// merged on the way, so that neither needs a second copy of the weights.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "erank/model/adapter.h"
#include "erank/model/checkpoint.h"
#include "erank/model/config.h"
#include "erank/model/parameters.h"
#include "erank/model/peft_folder.h"

namespace erank::model {

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  const ModelConfig& config() const { return config_; }

  // Rows of a tensor, as for_each_rows gives them: `take(first, values, count)` in parallel, in any
  // order. With an adapter on that layer, of W + scaling B A (each row scaled to its magnitude,
  // with DoRA), computed in fp32 and rounded once. `name`: the checkpoint's; a tied head is not
  // one. REQUIRES: parameter_shapes() has it.
  void read(const std::string& name, at::ScalarType dtype, const TakeRows& take) const;
  // Rows [begin, end) in order, on this thread. Thread-safe.
  void read_rows(const std::string& name, at::ScalarType dtype, int64_t begin, int64_t end,
                 const TakeRows& take) const;

  // The block format in which the source has a matrix, and reads it by read_stored(); nothing when
  // it has it otherwise, or an adapter changes it.
  virtual std::optional<data::DType> stored_format(const std::string& name) const;
  // Rows [begin, end) in order, on this thread, as blocks. REQUIRES: stored_format(name).
  // Thread-safe.
  virtual void read_stored(const std::string& name, int64_t begin, int64_t end,
                           const TakeRows& take) const;
  virtual std::string path() const { return ""; }  // of the files, for messages; "": none

  struct Size {
    int64_t rows, columns;  // a vector's columns are 1
  };
  virtual Size size_of(const std::string& name) const = 0;

 protected:
  explicit WeightSource(const ModelConfig& config) : config_(config) {}
  virtual void read_base(const std::string& name, at::ScalarType dtype, int64_t begin, int64_t end,
                         const TakeRows& take) const = 0;
  virtual const Lora* lora(const std::string& layer) const = 0;
  ModelConfig config_;
};

// The files of one checkpoint, checked when opened: every tensor in the files has its use and every
// parameter its tensor, else Error{kCorrupt} lists the leftovers. Two kinds of surplus tensors are
// accepted when they say what we compute anyway: a tied checkpoint's lm_head.weight that equals the
// embedding, and rotary_emb.inv_freq, cos_cached and sin_cached (old Llama exports). Rows of q and
// k that GGUF permutes for the llama architecture are put back. Pages of the map are released as
// they are read.
class CheckpointSource : public WeightSource {
 public:
  // `path`: a Hugging Face folder or a .gguf file. `adapter`: a PEFT folder to merge; "": none. One
  // that changes embedding and head of a tied model differently makes config() an untied one's.
  // Throws Error{kInvalidInput} when a copy of the base's own tensors in it differs from them.
  static CheckpointSource open(const std::string& path, const std::string& adapter = "");

  const Checkpoint& files() const { return files_; }
  Size size_of(const std::string& name) const override;
  std::optional<data::DType> stored_format(const std::string& name) const override;
  void read_stored(const std::string& name, int64_t begin, int64_t end,
                   const TakeRows& take) const override;
  std::string path() const override { return files_.path(); }

 protected:
  void read_base(const std::string& name, at::ScalarType dtype, int64_t begin, int64_t end,
                 const TakeRows& take) const override;
  const Lora* lora(const std::string& layer) const override;

 private:
  CheckpointSource(const ModelConfig& config, Checkpoint files)
      : WeightSource(config), files_(std::move(files)) {}
  void put_on(const std::string& adapter);
  const Checkpoint::Entry& entry_of(const std::string& name) const;

  Checkpoint files_;
  std::optional<PeftFolder> adapter_;
};

// Parameters with their active adapter. Borrows them.
class ParametersSource : public WeightSource {
 public:
  explicit ParametersSource(const Parameters& parameters);
  Size size_of(const std::string& name) const override;

 protected:
  void read_base(const std::string& name, at::ScalarType dtype, int64_t begin, int64_t end,
                 const TakeRows& take) const override;
  const Lora* lora(const std::string& layer) const override;

 private:
  const at::Tensor& find(const std::string& name) const;
  const Parameters& parameters_;
  std::map<std::string, at::Tensor> tensors_;
};

}  // namespace erank::model
