#include "cli/output.h"

#include "cli/digest.h"
#include "cli/verbs.h"
#include "erank/base/error.h"

namespace erank::cli {
namespace {

std::string name_of(const std::string& path) { return path.empty() ? "-" : path; }

// `path` when a verb may write it.
std::string checked(const std::string& path, bool overwrite,
                    const std::vector<std::string>& inputs) {
  refuse_inputs({name_of(path)}, inputs);
  if (!overwrite && base::output_target(name_of(path)).kind == base::OutputTarget::kFile)
    base::fail(base::ErrorKind::kInvalidInput, "--out", path,
               " exists; give another name or --overwrite");
  return name_of(path);
}

}  // namespace

Output::Output(const std::string& path, bool overwrite, const std::vector<std::string>& inputs)
    : file_(checked(path, overwrite, inputs),
            overwrite ? base::OutputFile::Existing::kReplace : base::OutputFile::Existing::kKeep,
            interrupted) {}

void refuse_inputs(const std::vector<std::string>& targets,
                   const std::vector<std::string>& inputs) {
  for (const auto& input : inputs) {
    std::vector<std::string> files = {input == "-" ? "/dev/stdin" : input};
    if (base::folder_exists(input)) files = model_files(input);
    for (const auto& file : files)
      for (const auto& target : targets)
        if (base::is_same_file(file, target == "-" ? "/dev/stdout" : target))
          base::fail(base::ErrorKind::kInvalidInput, "--out", target == "-" ? "stdout" : target,
                     " is the same file as the input ", file == "/dev/stdin" ? "stdin" : file,
                     ", which would be lost; choose another name");
  }
}

}  // namespace erank::cli
