#include "cli/output.h"

#include "cli/made_of.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/rank/model_files.h"

namespace erank::cli {
namespace {

std::string name_of(const std::string& path) { return path.empty() ? "-" : path; }

// `path` when a verb may write it.
std::string checked(const std::string& path, bool overwrite,
                    const std::vector<std::string>& inputs) {
  rank::refuse_inputs({name_of(path)}, inputs);
  if (!overwrite && base::output_target(name_of(path)).kind == base::OutputTarget::kFile)
    base::fail(base::ErrorKind::kInvalidInput, "--out", path,
               " exists; give another name or --overwrite");
  return name_of(path);
}

}  // namespace

void tell(const std::string& path, const data::ReadNotes& notes) {
  if (const std::string line = data::told(path, notes); !line.empty()) warn(line);
}

Output::Output(const std::string& path, bool overwrite, const std::vector<std::string>& inputs)
    : file_(checked(path, overwrite, inputs),
            overwrite ? base::OutputFile::Existing::kReplace : base::OutputFile::Existing::kKeep,
            interrupted) {
  const auto target = base::output_target(name_of(path));
  if (target.kind != base::OutputTarget::kStream) replaced_ = target.path;
}

void Output::commit() {
  if (!replaced_.empty()) remove_made_of(replaced_);
  file_.commit();
}

}  // namespace erank::cli
