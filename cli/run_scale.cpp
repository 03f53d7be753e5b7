#include "cli/run_scale.h"

#include "cli/made_of.h"
#include "erank/base/files.h"
#include "erank/text/scale.h"

namespace erank::cli {
namespace {

std::optional<MadeRecord> record_of(const std::string& run) {
  if (!base::file_exists(run)) return std::nullopt;
  return read_made_of(base::output_target(run).path, "rerank");
}

// A key of the record beside a run, "" where it is not there.
std::string said(const MadeRecord& record, const std::string& run, const char* key) {
  return base::json_value<std::string>(record.made_of, key, "",
                                       made_path(base::output_target(run).path));
}

}  // namespace

std::optional<eval::ScoreScale> said_scale(const std::string& run, const std::string& option) {
  using From = eval::ScoreScale::From;
  const auto scale = [](const std::string& name, const std::string& where, From from) {
    return eval::ScoreScale{static_cast<double>(text::max_answer(text::parse_scale(name, where))),
                            from};
  };
  if (!option.empty()) return scale(option, "--scale", From::kOption);
  const auto record = record_of(run);
  if (!record) return std::nullopt;
  if (!said(*record, run, "hybrid").empty()) return eval::ScoreScale{0, From::kRecord};
  const std::string name =
      record->scored_by ? record->scored_by->scale : said(*record, run, "scale");
  if (name.empty()) return std::nullopt;
  return scale(name, made_path(base::output_target(run).path), From::kRecord);
}

std::string hybrid_of(const std::string& run) {
  const auto record = record_of(run);
  return record ? said(*record, run, "hybrid") : "";
}

}  // namespace erank::cli
