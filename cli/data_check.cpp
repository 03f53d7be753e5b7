#include <cmath>

#include "cli/data_verbs.h"
#include "cli/output.h"
#include "cli/text_table.h"
#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"

namespace erank::cli {
namespace {

using base::OrderedJson;
using base::str;

struct CheckFlags {
  CollectionFlags files;
  std::string text_field, out;
  bool json = false, overwrite = false;
};

OrderedJson to_json(const data::IdCount& ids) {
  OrderedJson json = {{"count", ids.count}};
  if (ids.count > 0) json["example"] = ids.example;
  return json;
}

OrderedJson to_json(const data::OddIds& odd) {
  return {{"blank", to_json(odd.blank)},
          {"hash", to_json(odd.hash)},
          {"non_ascii", to_json(odd.non_ascii)},
          {"control", to_json(odd.control)},
          {"very_long", to_json(odd.very_long)}};
}

OrderedJson to_json(const data::Lengths& lengths) {
  return {{"least", lengths.least},
          {"median", lengths.median},
          {"p95", lengths.p95},
          {"most", lengths.most},
          {"mean", lengths.mean}};
}

OrderedJson to_json(const data::RecordsReport& r) {
  return {{"path", r.path},
          {"records", r.records},
          {"repeated", r.repeated},
          {"conflicting", to_json(r.conflicting)},
          {"same_text", to_json(r.same_text)},
          {"empty", to_json(r.empty)},
          {"repaired", r.repaired},
          {"numbered", r.numbered},
          {"odd_ids", to_json(r.odd)},
          {"characters", to_json(r.lengths)}};
}

OrderedJson to_json(const data::QrelsReport& r) {
  OrderedJson grades = OrderedJson::object();
  for (const auto& [grade, count] : r.grades) grades[std::to_string(grade)] = count;
  return {{"path", r.path},
          {"split", r.split},
          {"queries", r.queries},
          {"judgements", r.judgements},
          {"repeated", r.repeated},
          {"comments", r.comments},
          {"grades", grades},
          {"without_positive", to_json(r.without_positive)},
          {"of_no_query", to_json(r.lost.of_no_query)},
          {"of_no_document", to_json(r.lost.of_no_document)},
          {"unjudged_queries", r.unjudged},
          {"odd_ids", to_json(r.odd)}};
}

OrderedJson to_json(const data::RunReport& r) {
  return {{"path", r.path},
          {"queries", r.queries},
          {"hits", r.hits},
          {"comments", r.comments},
          {"hits_per_query", to_json(r.depth)},
          {"tied_hits", r.tied},
          {"of_no_query", to_json(r.unknown_queries)},
          {"of_no_document", to_json(r.unknown_hits)},
          {"queries_without_hits", to_json(r.missing_queries)},
          {"odd_ids", to_json(r.odd)}};
}

OrderedJson to_json(const data::CollectionReport& report) {
  OrderedJson json = OrderedJson::object();
  if (!report.corpus.empty()) json["corpus"] = to_json(report.corpus[0]);
  if (!report.queries.empty()) json["queries"] = to_json(report.queries[0]);
  if (!report.qrels.empty()) {
    json["qrels"] = OrderedJson::array();
    for (const auto& qrels : report.qrels) json["qrels"].push_back(to_json(qrels));
  }
  if (!report.run.empty()) json["run"] = to_json(report.run[0]);
  return json;
}

// Lines of a name and what there is; what should be looked at begins with `!`, and is left out when
// there is none.
class Table {
 public:
  void title(const std::string& name, const std::string& path) {
    if (!text_.empty()) text_ += "\n";
    text_ += name + "  " + base::printable(path) + "\n";
  }
  void line(const std::string& name, const std::string& value) {
    text_ += "    " + padded(name, 34) + value + "\n";
  }
  void line(const std::string& name, int64_t value) { line(name, std::to_string(value)); }
  void finding(const std::string& name, int64_t count) {
    if (count > 0) text_ += "  ! " + padded(name, 34) + std::to_string(count) + "\n";
  }
  void finding(const std::string& name, const data::IdCount& ids) {
    if (ids.count > 0)
      text_ += "  ! " + padded(name, 34) +
               str(ids.count, ", e.g. ", base::in_quotes(ids.example, 40)) + "\n";
  }
  void lengths(const std::string& name, const data::Lengths& lengths) {
    line(name, str(lengths.least, " to ", lengths.most, ", median ", lengths.median,
                   ", 95 % up to ", lengths.p95, ", mean ", std::round(lengths.mean * 10) / 10));
  }
  void odd_ids(const data::OddIds& odd) {
    finding("ids that hold a blank", odd.blank);
    finding("ids that begin with #", odd.hash);
    finding("ids that are not ASCII", odd.non_ascii);
    finding("ids with control characters", odd.control);
    finding("ids of more than 128 bytes", odd.very_long);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

void add(Table& table, const char* title, const char* unit, const data::RecordsReport& r) {
  table.title(title, r.path);
  table.line(unit, r.records);
  table.lengths("characters", r.lengths);
  table.finding("without id, numbered", r.numbered);
  table.finding("the same again, left out", r.repeated);
  table.finding("the same id, another text", r.conflicting);
  table.finding("the text of another id", r.same_text);
  table.finding("without text", r.empty);
  table.finding("no UTF-8, repaired", r.repaired);
  table.odd_ids(r.odd);
}

void add(Table& table, const data::QrelsReport& r) {
  table.title(r.split.empty() ? "qrels" : "qrels " + r.split, r.path);
  table.line("queries", r.queries);
  table.line("judgements", r.judgements);
  std::string grades;
  for (const auto& [grade, count] : r.grades)
    grades += str(grades.empty() ? "" : ", ", grade, " (", count, ")");
  table.line("grades", grades);
  table.finding("the same again, left out", r.repeated);
  table.finding("lines that begin with #, left out", r.comments);
  table.finding("queries without a grade above 0", r.without_positive);
  table.finding("judgements of no query", r.lost.of_no_query);
  table.finding("judgements of no document", r.lost.of_no_document);
  table.finding("queries without judgement", r.unjudged);
  table.odd_ids(r.odd);
}

void add(Table& table, const data::RunReport& r) {
  table.title("run", r.path);
  table.line("queries", r.queries);
  table.line("hits", r.hits);
  table.lengths("hits of a query", r.depth);
  table.finding("hits with another one's score", r.tied);
  table.finding("lines that begin with #, left out", r.comments);
  table.finding("queries that are not there", r.unknown_queries);
  table.finding("hits of no document", r.unknown_hits);
  table.finding("queries without a hit", r.missing_queries);
  table.odd_ids(r.odd);
}

void run_check(const CheckFlags& flags, base::ProgressSink& progress) {
  const data::CollectionFiles files = flags.files.files();
  if (files.corpus.empty() && files.queries.empty() && files.run.empty() && files.qrels.empty())
    base::fail(base::ErrorKind::kInvalidInput, "data check",
               "nothing to check; give --beir DIR, or --corpus, --queries, --qrels or --run");
  Output output(flags.out, flags.overwrite, flags.files.inputs());
  const data::CollectionReport report = data::check_collection(files, flags.text_field, &progress);
  if (flags.json) {
    output.write(base::dump_json(to_json(report)) + "\n");
  } else {
    Table table;
    for (const auto& r : report.corpus) add(table, "corpus", "documents", r);
    for (const auto& r : report.queries) add(table, "queries", "queries", r);
    for (const auto& r : report.qrels) add(table, r);
    for (const auto& r : report.run) add(table, r);
    output.write(table.text());
  }
  output.commit();
}

}  // namespace

void CollectionFlags::add_to(CLI::App& verb) {
  verb.add_option("--beir", beir, "A BEIR folder: its corpus, queries and judgements");
  verb.add_option("--corpus", corpus, "Documents: .jsonl, .json, .csv, .tsv or .txt (.gz, .zst)");
  verb.add_option("--queries", queries, "Queries, in the same forms");
  verb.add_option("--qrels", qrels, "Judgements: TREC qrels, BEIR TSV or CSV");
  verb.add_option("--run", run, "A TREC run");
  verb.add_option("--split", split, "Of a BEIR folder the judgements of this split alone [all]");
}

data::CollectionFiles CollectionFlags::files() const {
  data::CollectionFiles out;
  if (!beir.empty()) {
    const auto folder = data::find_beir(beir);
    out = {folder.corpus, folder.queries, "", folder.qrels};
    if (!split.empty()) {
      const auto found = folder.qrels.find(split);
      if (found == folder.qrels.end())
        base::fail(base::ErrorKind::kNotFound, "--split", beir, ": no judgements of split '", split,
                   "', expected qrels/", split, ".tsv or .txt");
      out.qrels = {*found};
    }
  }
  if (!corpus.empty()) out.corpus = corpus;
  if (!queries.empty()) out.queries = queries;
  if (!qrels.empty()) out.qrels = {{"", qrels}};
  out.run = run;
  return out;
}

std::vector<std::string> CollectionFlags::inputs() const {
  const data::CollectionFiles all = files();
  std::vector<std::string> out = {all.corpus, all.queries, all.run};
  for (const auto& [name, path] : all.qrels) out.push_back(path);
  return out;
}

void add_data_check(CLI::App& data, Context& context) {
  CLI::App* verb = data.add_subcommand(
      "check", "Count what a collection holds, and what in it does not fit together");
  auto flags = std::make_shared<CheckFlags>();
  flags->files.add_to(*verb);
  verb->add_option("--text-field", flags->text_field,
                   "The field that holds a document's text [text, contents, content, passage or "
                   "body]");
  verb->add_flag("--json", flags->json, "One JSON object, every count in it");
  verb->add_option("--out", flags->out, "Write here instead of stdout");
  verb->add_flag("--overwrite", flags->overwrite, "Let --out replace a file");
  verb->footer("Example: erank data check --beir nfcorpus --run bm25.run");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_check(*flags, *context.progress); };
  });
}

}  // namespace erank::cli
