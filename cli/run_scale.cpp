#include "cli/run_scale.h"

#include "cli/made_of.h"
#include "erank/base/files.h"
#include "erank/text/scale.h"

namespace erank::cli {
namespace {

// A key of the record beside a run, "" where there is none.
std::string recorded(const std::string& run, const char* key) {
  if (!base::file_exists(run)) return "";
  const std::string out = base::output_target(run).path;
  const auto made_of = read_made_of(out, "rerank");
  return made_of ? base::json_value<std::string>(*made_of, key, "", made_path(out)) : "";
}

}  // namespace

std::optional<eval::ScoreScale> said_scale(const std::string& run, const std::string& option) {
  using From = eval::ScoreScale::From;
  const auto scale = [](const std::string& name, const std::string& where, From from) {
    return eval::ScoreScale{static_cast<double>(text::max_answer(text::parse_scale(name, where))),
                            from};
  };
  if (!option.empty()) return scale(option, "--scale", From::kOption);
  if (!hybrid_of(run).empty()) return eval::ScoreScale{0, From::kRecord};
  if (!base::file_exists(run)) return std::nullopt;
  const std::string out = base::output_target(run).path;
  const auto by = read_scored_by(out);
  const std::string name = by ? by->scale : recorded(run, "scale");
  if (name.empty()) return std::nullopt;
  return scale(name, made_path(out), From::kRecord);
}

std::string hybrid_of(const std::string& run) { return recorded(run, "hybrid"); }

}  // namespace erank::cli
