#include "cli/benchmark_data.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <unordered_set>

#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/data/parquet_lines.h"
#include "erank/data/record_reader.h"

namespace erank::cli {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;

constexpr std::string_view kOg = "-og", kChanged = "-changed";

// Names without their endings that a role's file may have, the first that is there counts; * as in
// a shell. {split} is that of the judgements, {task} the task, {year} its year.
struct Role {
  std::string TaskFiles::*file;
  std::vector<std::string_view> in_task;  // in the task's own folder
  std::vector<std::string_view> in_data;  // in the data folder, where all tasks' files lie
};

const std::vector<Role>& roles() {
  static const std::vector<Role> all = {
      {&TaskFiles::corpus,
       {"corpus", "documents", "collection"},
       {"documents/{task}", "documents/{task}-*", "corpus/{task}", "collection"}},
      {&TaskFiles::queries,
       {"queries", "examples", "topics"},
       {"examples/{task}", "examples/{task}-*", "queries/{task}", "msmarco-test{year}-queries"}},
      {&TaskFiles::qrels,
       {"qrels/{split}", "qrels", "qrels_og/{split}", "{year}qrels-pass"},
       {"qrels/{task}", "{year}qrels-pass"}},
      {&TaskFiles::candidates,
       {"candidates", "*_with_text", "top1000"},
       {"candidates/{task}", "msmarco-passagetest{year}-top1000"}},
      {&TaskFiles::run, {"run", "run.*"}, {"runs/{task}", "runs/{task}.*"}},
      {&TaskFiles::instructions, {"instruction", "instructions"}, {}},
      {&TaskFiles::top_ranked, {"top_ranked"}, {}},
      {&TaskFiles::changed, {"qrel_diff"}, {}},
      {&TaskFiles::changed_qrels, {"qrels_changed/{split}"}, {}},
  };
  return all;
}

// "corpus" of "corpus.jsonl.gz"; "" for an ending that no reader knows.
std::string stem_of(std::string name) {
  name.resize(data::without_packing(name).size());
  for (const char* ending :
       {".jsonl", ".json", ".tsv", ".csv", ".txt", ".trec", ".run", ".parquet"})
    if (name.ends_with(ending)) return name.substr(0, name.size() - std::string(ending).size());
  return "";
}

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  for (size_t at; (at = text.find(what)) != text.npos;) text.replace(at, what.size(), by);
  return text;
}

// "2019" of dl19.
std::string year_of(std::string_view task) {
  return task.starts_with("dl") ? "20" + std::string(task.substr(2)) : "";
}

struct Place {
  std::string folder, task, split;
};

// The file of `pattern`, "" when there is none.
std::string find_file(const Place& place, std::string_view name) {
  std::string pattern = replaced(std::string(name), "{split}", place.split);
  pattern = replaced(replaced(pattern, "{task}", place.task), "{year}", year_of(place.task));
  const size_t slash = pattern.rfind('/');
  const fs::path folder = slash == pattern.npos ? fs::path(place.folder)
                                                : place.folder / fs::path(pattern.substr(0, slash));
  if (slash != pattern.npos) pattern.erase(0, slash + 1);
  if (!base::folder_exists(folder.string())) return "";
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string stem = stem_of(entry.path().filename().string());
    if (!stem.empty() && ::fnmatch(pattern.c_str(), stem.c_str(), 0) == 0 &&
        base::file_exists(entry.path().string()))
      found.push_back(entry.path().string());
  }
  std::sort(found.begin(), found.end());
  if (found.size() > 1 && data::parquet_parts(found[0]) == found) return found[0];
  if (found.size() > 1)
    base::fail(ErrorKind::kInvalidInput, "--data", found[0], " and ", found[1],
               " may both be meant; leave one of them in this folder");
  return found.empty() ? "" : found[0];
}

TaskFiles find_files(const Place& place, std::vector<std::string_view> Role::*names) {
  TaskFiles files;
  files.task = place.task;
  for (const Role& role : roles())
    for (const auto name : role.*names)
      if (std::string& file = files.*role.file; file.empty()) file = find_file(place, name);
  return files;
}

// Which task a folder of this name holds, "" for none.
std::string task_of(const eval::Benchmark& benchmark, std::string name) {
  if (benchmark.tasks.empty()) return name;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return c == '-' ? '_' : static_cast<char>(std::tolower(c));
  });
  if (benchmark.name == "trec-dl") {  // dl19, trec-dl-2019, 2019, ...
    const size_t end = name.find_last_of("0123456789");
    if (end == name.npos || end != name.size() - 1) return "";
    const size_t begin = name.find_last_not_of("0123456789") + 1;
    const std::string digits = name.substr(begin);
    const bool is_year = (digits.size() == 4 && digits.starts_with("20")) ||
                         (digits.size() == 2 && name.find("dl") != name.npos);
    return is_year ? "dl" + digits.substr(digits.size() - 2) : "";
  }
  for (const auto task : benchmark.tasks)
    if (benchmark.has_pairs ? name.starts_with(task) : name == task) return std::string(task);
  return "";
}

bool is_task(const TaskFiles& files) { return !files.queries.empty() || !files.candidates.empty(); }

// Throws when something is missing; gives the judgements that the queries hold themselves.
void complete(const eval::Benchmark& benchmark, const std::string& folder, TaskFiles& files) {
  if (files.qrels.empty() && benchmark.has_exclusions) files.qrels = files.queries;  // gold_ids
  const bool listed = !files.candidates.empty() || !files.run.empty() || !files.top_ranked.empty();
  const auto lacks = [&](const char* what) {
    base::fail(ErrorKind::kNotFound, "--data", folder, ": ", benchmark.title, "'s task ",
               files.task, " has no ", what,
               "; docs/formats.md, 'Benchmark folder', lists the names");
  };
  if (files.qrels.empty()) lacks("judgements, e.g. qrels/test.tsv (--split names another split)");
  if (files.candidates.empty() && files.corpus.empty())
    lacks("corpus and no candidates with texts");
  if (benchmark.has_pairs && !listed)
    lacks("candidates: top_ranked, a run or candidates with texts");
}

bool ends_with_instruction(std::string_view qid) {
  return qid.ends_with(kOg) || qid.ends_with(kChanged);
}

std::string appended(std::string text, const std::string& instruction) {
  if (instruction.empty()) return text;
  return text + (text.empty() ? "" : " ") + instruction;
}

// {"query-id": Q, "instruction": text}.
std::unordered_map<std::string, std::string> read_instructions(const std::string& path) {
  std::unordered_map<std::string, std::string> out;
  if (path.empty()) return out;
  data::for_each_line(path, [&](std::string_view line, int64_t number) {
    if (line.find_first_not_of(" \t") == line.npos) return;
    const std::string where = base::str(path, ":", number);
    const base::Json object = base::parse_json(line, where);
    const std::string qid = base::json_require<std::string>(object, "query-id", where);
    out[qid] = base::json_require<std::string>(object, "instruction", where);
  });
  return out;
}

std::vector<data::Query> read_task_queries(const TaskFiles& files) {
  data::ReadNotes notes;
  std::vector<data::Query> queries;
  if (files.queries.empty()) {
    for (auto& list : data::read_candidates(files.candidates, {.notes = &notes}))
      queries.push_back(std::move(list.query));
    tell(files.candidates, notes);
    return queries;
  }
  queries = data::read_queries(files.queries, {.notes = &notes});
  tell(files.queries, notes);
  auto instructions = read_instructions(files.instructions);
  // What the queries hold themselves; the older layout both of a query's.
  data::for_each_record(
      files.queries, data::RecordKind::kQuery, {},
      [&](const data::Record& record, const data::Place&) {
        if (!record.from || !record.from->is_object()) return;
        for (const auto& [key, ending] : {std::pair("instruction", std::string_view()),
                                          {"instruction_og", kOg},
                                          {"instruction_changed", kChanged}})
          if (const auto it = record.from->find(key); it != record.from->end() && it->is_string())
            instructions.emplace(record.id + std::string(ending), *it);
      });
  if (!files.changed_qrels.empty()) {
    std::vector<data::Query> both;
    for (const auto& query : queries)
      for (const auto ending : {kOg, kChanged})
        both.push_back({query.id + std::string(ending), query.text});
    queries = std::move(both);
  }
  for (auto& query : queries) query.text = appended(std::move(query.text), instructions[query.id]);
  return queries;
}

// Judgements under both instructions, of the older layout's two files.
data::Qrels both_judgements(const data::Qrels& og, const data::Qrels& changed) {
  data::Qrels out;
  for (const auto& [qrels, ending] : {std::pair(&og, kOg), {&changed, kChanged}})
    for (const auto& qid : qrels->qids) {
      out.qids.push_back(qid + std::string(ending));
      out.grades[out.qids.back()] = qrels->grades.at(qid);
    }
  return out;
}

// Of Q: the documents that its topic Q-og judges relevant and Q-changed does not.
data::DocumentLists changed_judgements(const data::Qrels& qrels) {
  data::DocumentLists out;
  for (const auto& qid : qrels.qids) {
    if (!qid.ends_with(kOg)) continue;
    const std::string query(without_instruction(qid));
    const auto after = qrels.grades.find(query + std::string(kChanged));
    if (after == qrels.grades.end()) continue;
    auto& documents = out[query];
    for (const auto& [docid, grade] : qrels.grades.at(qid)) {
      const auto found = after->second.find(docid);
      if (grade > 0 && (found == after->second.end() || found->second <= 0))
        documents.push_back(docid);
    }
    std::sort(documents.begin(), documents.end());
  }
  return out;
}

// Topics under their first instruction, by the names that p-MRR gives them.
data::Qrels og_topics(data::Qrels qrels) {
  data::Qrels out;
  for (const auto& qid : qrels.qids) {
    if (qid.ends_with(kChanged)) continue;
    const std::string topic = qid.ends_with(kOg) ? qid : qid + std::string(kOg);
    out.qids.push_back(topic);
    out.grades[topic] = std::move(qrels.grades.at(qid));
  }
  return out;
}

void keep_topics(const std::unordered_set<std::string>& kept, data::Qrels& qrels) {
  std::erase_if(qrels.qids, [&](const std::string& qid) { return !kept.count(qid); });
  std::erase_if(qrels.grades, [&](const auto& topic) { return !kept.count(topic.first); });
}

}  // namespace

std::string_view without_instruction(std::string_view qid) {
  for (const auto ending : {kOg, kChanged})
    if (qid.ends_with(ending)) return qid.substr(0, qid.size() - ending.size());
  return qid;
}

std::vector<std::string> TaskFiles::all() const {
  std::vector<std::string> out;
  for (const Role& role : roles())
    if (const std::string& file = this->*role.file; !file.empty()) out.push_back(file);
  return out;
}

std::vector<TaskFiles> find_tasks(const eval::Benchmark& benchmark, const std::string& folder,
                                  const std::string& split) {
  if (!base::folder_exists(folder))
    base::fail(ErrorKind::kNotFound, "--data", folder, ": no such folder");
  std::vector<TaskFiles> tasks;
  const auto add = [&](TaskFiles files, const std::string& where) {
    if (!is_task(files)) return;
    for (const auto& other : tasks)
      if (other.task == files.task)
        base::fail(ErrorKind::kInvalidInput, "--data", folder, " has the task ", files.task,
                   " twice, in ", fs::path(other.all()[0]).parent_path().string(), " and ", where);
    complete(benchmark, where, files);
    tasks.push_back(std::move(files));
  };
  const auto add_folder = [&](const fs::path& path) {
    const fs::path whole = fs::canonical(path);  // "." has a name too
    const std::string task = task_of(benchmark, whole.filename().string());
    if (!task.empty()) add(find_files({path.string(), task, split}, &Role::in_task), path.string());
  };
  add_folder(folder);
  if (tasks.empty()) {
    std::vector<fs::path> folders;
    for (const auto& entry : fs::directory_iterator(folder))
      if (base::folder_exists(entry.path().string())) folders.push_back(entry.path());
    std::sort(folders.begin(), folders.end());
    for (const auto& path : folders) add_folder(path);
    for (const auto task : benchmark.tasks)
      add(find_files({folder, std::string(task), split}, &Role::in_data), folder);
  }
  if (tasks.empty()) {
    std::string names;
    for (const auto task : benchmark.tasks)
      names +=
          (names.empty() ? "; expected folders or files of its tasks, " : ", ") + std::string(task);
    base::fail(ErrorKind::kNotFound, "--data", folder, ": nothing of ", benchmark.title, " in it",
               names, "; docs/formats.md, 'Benchmark folder', lists the layouts");
  }
  const auto number = [&](const TaskFiles& files) {
    return std::find(benchmark.tasks.begin(), benchmark.tasks.end(), files.task) -
           benchmark.tasks.begin();
  };
  std::stable_sort(tasks.begin(), tasks.end(),
                   [&](const TaskFiles& a, const TaskFiles& b) { return number(a) < number(b); });
  return tasks;
}

TaskQueries read_task(const eval::Benchmark& benchmark, const TaskFiles& files, int limit) {
  TaskQueries out;
  data::ReadNotes notes;
  data::Qrels qrels = data::read_qrels(files.qrels, &notes);
  tell(files.qrels, notes);
  if (!files.changed_qrels.empty()) {
    data::ReadNotes changed_notes;
    qrels = both_judgements(qrels, data::read_qrels(files.changed_qrels, &changed_notes));
    tell(files.changed_qrels, changed_notes);
  }
  auto queries = read_task_queries(files);
  if (benchmark.has_exclusions) {
    if (!files.queries.empty()) out.excluded = data::read_excluded_documents(files.queries);
    if (out.excluded.empty())
      warn(base::str(files.queries.empty() ? files.candidates : files.queries,
                     ": no query has 'excluded_ids', so nothing is excluded"));
  }
  if (benchmark.has_pairs) {
    out.judgements.changed = files.changed.empty() ? changed_judgements(qrels)
                                                   : data::read_document_lists(files.changed);
    qrels = og_topics(std::move(qrels));
  }
  const auto name_of = [&](const std::string& qid) {
    return std::string(benchmark.has_pairs ? without_instruction(qid) : qid);
  };
  std::unordered_set<std::string> judged, kept;
  for (const auto& qid : qrels.qids) judged.insert(name_of(qid));
  for (auto& query : queries) {
    if (benchmark.has_pairs && !ends_with_instruction(query.id)) continue;
    const std::string name = name_of(query.id);
    if (!judged.count(name)) continue;
    if (limit > 0 && std::ssize(kept) == limit && !kept.count(name)) continue;
    kept.insert(name);
    out.queries.push_back(std::move(query));
  }
  if (out.queries.empty())
    base::fail(ErrorKind::kInvalidInput, "benchmark", files.qrels,
               " judges none of the queries of ",
               files.queries.empty() ? files.candidates : files.queries,
               benchmark.has_pairs ? ", whose ids end in -og and -changed" : "");
  if (limit <= 0 && kept.size() < judged.size())
    warn(base::str(judged.size() - kept.size(), " of ", judged.size(),
                   " judged queries are not in ",
                   files.queries.empty() ? files.candidates : files.queries,
                   benchmark.has_pairs ? ": they are left out" : ": they count as 0"));
  if (limit > 0) {
    std::erase_if(out.judgements.changed,
                  [&](const auto& list) { return !kept.count(list.first); });
    std::unordered_set<std::string> topics;
    for (const auto& query : out.queries) topics.insert(query.id);
    keep_topics(topics, qrels);
  }
  if (benchmark.has_pairs &&
      std::all_of(out.judgements.changed.begin(), out.judgements.changed.end(),
                  [](const auto& list) { return list.second.empty(); }))
    base::fail(ErrorKind::kInvalidInput, "benchmark",
               files.changed.empty() ? files.qrels : files.changed,
               ": the changed instruction makes no document of these queries irrelevant, so there "
               "is no p-MRR",
               limit > 0 ? "; raise --limit" : "");
  out.judgements.qrels = std::move(qrels);
  return out;
}

}  // namespace erank::cli
