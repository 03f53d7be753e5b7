#include <map>

#include "cli/made_of.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/data/journal.h"
#include "erank/data/source.h"

namespace erank::cli {
namespace {

using base::ErrorKind;
using base::Json;

struct MergeFlags {
  std::vector<std::string> parts;
  std::string out;
  bool overwrite = false;
};

std::string without_part(const std::string& path, const char* why) {
  return base::str(path, ": ", why, "; expected a finished output of `erank rerank --shard i/n`");
}

// The outputs by shard, the first of them saying what all were made of.
struct Parts {
  std::map<int64_t, std::string> paths;
  int64_t count = 0;
  MadeRecord first;  // its "shard" is ""
};

Parts read_parts(const std::vector<std::string>& paths) {
  Parts parts;
  for (const auto& path : paths) {
    const std::string target = base::output_target(path).path;
    if (!base::file_exists(target))
      base::fail(ErrorKind::kNotFound, "merge", without_part(path, "there is no such file"));
    auto record = read_made_of(target, "rerank");
    if (!record)
      base::fail(ErrorKind::kInvalidInput, "merge",
                 without_part(path, base::str("there is no ", made_path(target)).c_str()));
    if (data::Journal::exists(target + ".journal"))
      base::fail(ErrorKind::kInvalidInput, "merge", path, ": pairs of it could not be scored, and ",
                 target,
                 ".journal waits for `erank rerank --resume` to try them again; do that, "
                 "or remove the journal");
    Json& made_of = record->made_of;
    const Json shard = made_of.value("shard", Json());
    if (!shard.is_string() || shard == "")
      base::fail(ErrorKind::kInvalidInput, "merge", without_part(path, "is no shard"));
    const Shard part = parse_shard(shard, made_path(target));
    made_of["shard"] = "";
    if (parts.count == 0) {
      parts.count = part.count;
      parts.first = *record;
    }
    if (part.count != parts.count)
      base::fail(ErrorKind::kInvalidInput, "merge", path, " is shard ", part.number, " of ",
                 part.count, ", the first file is one of ", parts.count);
    // Of the two the earlier one is why, where they are of different versions.
    parts.first.is_early |= record->is_early;
    if (const std::string what = difference(parts.first, made_of); !what.empty())
      base::fail(ErrorKind::kInvalidInput, "merge", path,
                 ": does not belong to the first file: ", what);
    const auto [known, added] = parts.paths.emplace(part.number, path);
    if (!added && !base::is_same_file(known->second, path) &&
        base::read_file(known->second) != base::read_file(path))
      base::fail(ErrorKind::kInvalidInput, "merge", known->second, " and ", path,
                 " are both shard ", part.number, " and differ; leave one out");
  }
  return parts;
}

void check_whole(const Parts& parts) {
  std::string missing;
  int64_t number = 0;
  for (int64_t i = 1; i <= parts.count; ++i) {
    if (parts.paths.contains(i)) continue;
    if (++number <= 20) missing += base::str(missing.empty() ? "" : ", ", i);
  }
  if (number > 0)
    base::fail(ErrorKind::kInvalidInput, "merge", number, " of ", parts.count,
               " shards are missing: ", missing, number > 20 ? ", ..." : "");
}

void run_merge(const MergeFlags& flags, Context& context) {
  Output output(flags.out, flags.overwrite, flags.parts);
  const auto target = base::output_target(flags.out.empty() ? "-" : flags.out);
  const bool stream = target.kind == base::OutputTarget::kStream;
  if (!stream) check_made_of(target.path, "rerank");  // what is none is refused before any work
  const Parts parts = read_parts(flags.parts);
  check_whole(parts);
  for (const auto& [number, path] : parts.paths) {
    if (interrupted()) return;
    data::ByteSource part(path);  // unpacked: a part's name may end in .gz
    for (std::string_view bytes; !(bytes = part.next()).empty();) output.write(bytes);
    context.progress->update({"merge", number, parts.count, "shards", ""});
  }
  context.progress->finish();
  output.commit();
  if (!stream) write_made_of(target.path, "rerank", parts.first.made_of, parts.first.scored_by);
}

}  // namespace

void add_merge_outputs(CLI::App& app, Context& context) {
  CLI::App* verb =
      app.add_subcommand("merge", "Join the outputs of `erank rerank --shard` into one");
  auto flags = std::make_shared<MergeFlags>();
  verb->add_option("parts", flags->parts, "the shards' outputs, in any order")->required();
  verb->add_option("--out", flags->out, "write here instead of stdout");
  verb->add_flag("--overwrite", flags->overwrite, "let --out replace a file");
  verb->footer(
      "Example:\n"
      "  erank rerank --beir nfcorpus --run bm25.trec --format trec --shard 1/2 --out part1.trec\n"
      "  erank rerank --beir nfcorpus --run bm25.trec --format trec --shard 2/2 --out part2.trec\n"
      "  erank merge part1.trec part2.trec --out erank.trec");
  verb->callback(
      [flags, &context] { context.run = [flags, &context] { run_merge(*flags, context); }; });
}

}  // namespace erank::cli
