#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <set>
#include <string_view>

#include "erank/base/error.h"
#include "erank/eval/measures.h"

namespace erank::eval {
namespace {

using base::ErrorKind;

enum class Parameters {
  kNone,
  kCutoffs,       // a measure for each rank
  kRecallPoints,  // a measure for each recall
  kRecallList,    // one measure, the mean over the list
  kNumber,        // one measure with one number
  kGains,         // one measure with grade=gain pairs
};

struct Family {
  const char* name;
  MeasureKind kind;
  Parameters parameters = Parameters::kNone;
  std::vector<double> defaults = {};
  bool official = false;  // in the set "official"
  bool set = false;       // in the set "set"
};

// In the order in which trec_eval prints.
const std::vector<Family>& families() {
  const std::vector<double> ranks = {5, 10, 15, 20, 30, 100, 200, 500, 1000};
  const std::vector<double> recalls = {0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1};
  using K = MeasureKind;
  using P = Parameters;
  static const std::vector<Family> table = {
      {"runid", K::kRunId, P::kNone, {}, true, true},
      {"num_q", K::kNumQ, P::kNone, {}, true, true},
      {"num_ret", K::kNumRet, P::kNone, {}, true, true},
      {"num_rel", K::kNumRel, P::kNone, {}, true, true},
      {"num_rel_ret", K::kNumRelRet, P::kNone, {}, true, true},
      {"map", K::kAp, P::kNone, {}, true},
      {"gm_map", K::kGmAp, P::kNone, {}, true},
      {"Rprec", K::kRprec, P::kNone, {}, true},
      {"bpref", K::kBpref, P::kNone, {}, true},
      {"recip_rank", K::kRr, P::kNone, {}, true},
      {"iprec_at_recall", K::kIprec, P::kRecallPoints, recalls, true},
      {"P", K::kP, P::kCutoffs, ranks, true},
      {"recall", K::kRecall, P::kCutoffs, ranks},
      {"gm_bpref", K::kGmBpref},
      {"11pt_avg", K::k11ptAvg, P::kRecallList, recalls},
      {"ndcg", K::kNdcg, P::kGains},
      {"ndcg_cut", K::kNdcg, P::kCutoffs, ranks},
      {"map_cut", K::kAp, P::kCutoffs, ranks},
      {"success", K::kSuccess, P::kCutoffs, {1, 5, 10}},
      {"set_P", K::kSetP, P::kNone, {}, false, true},
      {"set_relative_P", K::kSetRelativeP, P::kNone, {}, false, true},
      {"set_recall", K::kSetRecall, P::kNone, {}, false, true},
      {"set_map", K::kSetAp, P::kNone, {}, false, true},
      {"set_F", K::kSetF, P::kNumber, {1}, false, true},
      {"num_nonrel_judged_ret", K::kNumNonrelJudgedRet},
      {"unj", K::kUnjudged, P::kCutoffs, {5, 10, 20}},
  };
  return table;
}

// ir_measures: NAME(key=value,...)@cutoff.
struct IrName {
  const char* name;
  MeasureKind kind;
  bool rel = true;                            // takes rel=
  enum { kNo, kMay, kMust, kRecall } cutoff;  // takes @; kRecall: @ is the recall point
};
constexpr IrName kIrNames[] = {
    {"AP", MeasureKind::kAp, true, IrName::kMay},
    {"MAP", MeasureKind::kAp, true, IrName::kMay},
    {"RR", MeasureKind::kRr, true, IrName::kMay},
    {"MRR", MeasureKind::kRr, true, IrName::kMay},
    {"nDCG", MeasureKind::kNdcg, false, IrName::kMay},
    {"NDCG", MeasureKind::kNdcg, false, IrName::kMay},
    {"P", MeasureKind::kP, true, IrName::kMust},
    {"R", MeasureKind::kRecall, true, IrName::kMust},
    {"Rprec", MeasureKind::kRprec, true, IrName::kNo},
    {"Bpref", MeasureKind::kBpref, true, IrName::kNo},
    {"Success", MeasureKind::kSuccess, true, IrName::kMust},
    {"Judged", MeasureKind::kJudged, false, IrName::kMay},
    {"IPrec", MeasureKind::kIprec, true, IrName::kRecall},
    {"SetP", MeasureKind::kSetP, true, IrName::kNo},
    {"SetR", MeasureKind::kSetRecall, true, IrName::kNo},
    {"SetAP", MeasureKind::kSetAp, true, IrName::kNo},
    {"SetF", MeasureKind::kSetF, true, IrName::kNo},
    {"NumQ", MeasureKind::kNumQ, false, IrName::kNo},
    {"NumRet", MeasureKind::kNumRet, true, IrName::kNo},
    {"NumRel", MeasureKind::kNumRel, true, IrName::kNo},
};

template <typename... Args>
[[noreturn]] void refuse(const std::string& name, const Args&... why) {
  base::fail(ErrorKind::kInvalidInput, "measures", "'", name, "': ", why...);
}

[[noreturn]] void refuse_unknown(const std::string& name) {
  std::string known;
  for (const Family& family : families()) known += std::string(" ") + family.name;
  for (const IrName& ir : kIrNames) known += std::string(" ") + ir.name;
  refuse(name, "unknown measure; known are official set all_trec", known);
}

double number(const std::string& name, std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    refuse(name, "'", text, "' is not a number");
  return value;
}

int64_t rank(const std::string& name, double value) {
  if (value < 1 || value > 1e15) refuse(name, "a cut-off must be at least 1");
  return static_cast<int64_t>(value);
}

double recall(const std::string& name, double value) {
  if (value < 0 || value > 1) refuse(name, "a recall point must lie between 0 and 1");
  return value;
}

int64_t grade(const std::string& name, std::string_view text) {
  const double value = number(name, text);
  if (value != std::floor(value) || value < 0 || value > 1e15)
    refuse(name, "'", text, "' is not a grade");
  return static_cast<int64_t>(value);
}

std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(by, begin);
    parts.push_back(text.substr(begin, end == text.npos ? end : end - begin));
    if (end == text.npos) return parts;
    begin = end + 1;
  }
}

// What was asked of one family, from all names together.
struct Asked {
  bool by_name = false;          // without parameters; else by a set or with parameters
  std::set<double> values;       // kCutoffs, kRecallPoints
  std::vector<Measure> singles;  // of the kinds that take their parameters as a whole
};

// The family and the parameters' text of "family", "family.params" or "family_params"; null when
// `name` is not of that form. The longest family wins: "ndcg_cut_5" is not "ndcg" with "cut_5".
const Family* find_family(std::string_view name, std::string_view& parameters) {
  const Family* found = nullptr;
  for (const Family& family : families()) {
    const std::string_view own = family.name;
    if (!name.starts_with(own) || (found && own.size() < std::string_view(found->name).size()))
      continue;
    if (name.size() == own.size()) {
      parameters = {};
      return &family;
    }
    const char mark = name[own.size()];
    const std::string_view rest = name.substr(own.size() + 1);
    const bool printed_form =
        mark == '_' && !rest.empty() && std::string_view("0123456789.").find(rest[0]) != rest.npos;
    if ((mark != '.' && !printed_form) || family.parameters == Parameters::kNone) continue;
    found = &family;
    parameters = rest;
  }
  return found;
}

// The measure of a family that takes its parameters as a whole; `asked` is how the caller wrote it.
Measure single(const Family& family, std::string_view parameters, const std::string& asked) {
  Measure measure{.name = family.name, .kind = family.kind};
  if (!parameters.empty()) measure.name.append("_").append(parameters);
  if (family.parameters == Parameters::kNumber) {
    measure.parameter = parameters.empty() ? family.defaults[0] : number(asked, parameters);
  } else if (family.parameters == Parameters::kRecallList && parameters.empty()) {
    measure.recall_points = family.defaults;
  } else if (family.parameters == Parameters::kRecallList) {
    for (const auto part : split(parameters, ','))
      measure.recall_points.push_back(recall(asked, number(asked, part)));
    std::sort(measure.recall_points.begin(), measure.recall_points.end());
  } else if (family.parameters == Parameters::kGains && !parameters.empty()) {
    for (const auto part : split(parameters, ',')) {
      const auto pair = split(part, '=');
      if (pair.size() != 2) refuse(asked, "gains are written grade=gain,grade=gain");
      if (!measure.gains.emplace(grade(asked, pair[0]), number(asked, pair[1])).second)
        refuse(asked, "grade ", pair[0], " is given twice");
    }
  }
  return measure;
}

void ask(const std::string& name, const Family& family, std::string_view parameters, Asked& asked) {
  const bool is_rank = family.parameters == Parameters::kCutoffs;
  if (parameters.data() == nullptr) {
    asked.by_name = true;
  } else if (parameters.empty()) {
    refuse(name, "parameters are missing after the name");
  } else if (is_rank || family.parameters == Parameters::kRecallPoints) {
    for (const std::string_view part : split(parameters, ',')) {
      const double value = number(name, part);
      asked.values.insert(is_rank ? static_cast<double>(rank(name, value)) : recall(name, value));
    }
  } else {
    Measure measure = single(family, parameters, name);
    if (std::none_of(asked.singles.begin(), asked.singles.end(),
                     [&](const Measure& x) { return x.name == measure.name; }))
      asked.singles.push_back(std::move(measure));
  }
}

void append_family(const Family& family, const Asked& asked, std::vector<Measure>& measures) {
  const bool is_rank = family.parameters == Parameters::kCutoffs;
  if (is_rank || family.parameters == Parameters::kRecallPoints) {
    std::set<double> values = asked.values;
    if (values.empty() || asked.by_name)
      values.insert(family.defaults.begin(), family.defaults.end());
    for (const double value : values) {
      Measure measure{.name = family.name, .kind = family.kind};
      char suffix[32];
      if (is_rank) {
        measure.cutoff = static_cast<int64_t>(value);
        std::snprintf(suffix, sizeof suffix, "_%lld", static_cast<long long>(value));
      } else {
        measure.parameter = value;
        std::snprintf(suffix, sizeof suffix, "_%3.2f", value);
      }
      measure.name += suffix;
      measures.push_back(std::move(measure));
    }
    return;
  }
  if (asked.by_name || asked.singles.empty()) measures.push_back(single(family, "", family.name));
  measures.insert(measures.end(), asked.singles.begin(), asked.singles.end());
}

// "a=1,b={2:3,4:5}" at the commas outside braces.
std::vector<std::string_view> split_parameters(std::string_view text) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  bool braced = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{' || text[i] == '}') braced = text[i] == '{';
    if (text[i] != ',' || braced) continue;
    parts.push_back(text.substr(begin, i - begin));
    begin = i + 1;
  }
  parts.push_back(text.substr(begin));
  return parts;
}

// The gains of "{1:3,2:9}".
std::map<int64_t, double> ir_gains(const std::string& name, std::string_view text) {
  std::map<int64_t, double> gains;
  if (!text.starts_with('{') || !text.ends_with('}'))
    refuse(name, "gains are written gains={grade:gain,grade:gain}");
  for (const auto part : split(text.substr(1, text.size() - 2), ',')) {
    const auto pair = split(part, ':');
    if (pair.size() != 2) refuse(name, "gains are written gains={grade:gain,grade:gain}");
    const double gain = number(name, pair[1]);
    if (gain < 0) refuse(name, "gain ", pair[1], " is below 0");
    if (!gains.emplace(grade(name, pair[0]), gain).second)
      refuse(name, "grade ", pair[0], " is given twice");
  }
  return gains;
}

// The measure of an ir_measures name; nullopt when its first word is none of theirs.
std::optional<Measure> parse_ir(const std::string& name) {
  std::string_view rest = name;
  const size_t end = std::min(rest.find_first_of("(@"), rest.size());
  const auto ir = std::find_if(std::begin(kIrNames), std::end(kIrNames),
                               [&](const IrName& x) { return rest.substr(0, end) == x.name; });
  if (ir == std::end(kIrNames)) return std::nullopt;
  Measure measure{.name = name, .kind = ir->kind};
  if (ir->kind == MeasureKind::kSetF) measure.parameter = 1;
  rest.remove_prefix(end);
  if (rest.starts_with('(')) {
    const size_t close = rest.find(')');
    if (close == rest.npos) refuse(name, "')' is missing");
    for (const auto part : split_parameters(rest.substr(1, close - 1))) {
      const auto pair = split(part, '=');
      if (pair.size() == 2 && pair[0] == "gains" && ir->kind == MeasureKind::kNdcg) {
        measure.gains = ir_gains(name, pair[1]);
      } else if (pair.size() == 2 && pair[0] == "rel" && ir->rel) {
        measure.relevance_level = grade(name, pair[1]);
      } else if (pair.size() == 2 && pair[0] == "beta" && ir->kind == MeasureKind::kSetF) {
        measure.parameter = number(name, pair[1]);
      } else {
        refuse(name, "'", part, "' is not a parameter that is understood here");
      }
    }
    rest.remove_prefix(close + 1);
  }
  if (ir->kind == MeasureKind::kNumRet && measure.relevance_level)
    measure.kind = MeasureKind::kNumRelRet;
  if (rest.empty()) {
    if (ir->cutoff == IrName::kMust || ir->cutoff == IrName::kRecall)
      refuse(name, "needs a cut-off, as in ", ir->name,
             ir->cutoff == IrName::kMust ? "@10" : "@0.1");
    return measure;
  }
  if (rest[0] != '@' || ir->cutoff == IrName::kNo)
    refuse(name, "'", rest, "' is not understood after ", ir->name);
  const double value = number(name, rest.substr(1));
  if (ir->cutoff == IrName::kRecall) {
    measure.parameter = recall(name, value);
  } else {
    if (value != std::floor(value)) refuse(name, "a cut-off must be a whole number");
    measure.cutoff = rank(name, value);
  }
  return measure;
}

}  // namespace

bool Measure::is_count() const {
  return kind == MeasureKind::kNumQ || kind == MeasureKind::kNumRet ||
         kind == MeasureKind::kNumRel || kind == MeasureKind::kNumRelRet ||
         kind == MeasureKind::kNumNonrelJudgedRet;
}

bool Measure::is_per_topic() const {
  return kind != MeasureKind::kRunId && kind != MeasureKind::kNumQ && kind != MeasureKind::kGmAp &&
         kind != MeasureKind::kGmBpref;
}

std::vector<Measure> parse_measures(const std::vector<std::string>& names) {
  std::map<const Family*, Asked> asked;
  std::vector<Measure> ir_measures;
  const std::vector<std::string> official = {"official"};
  for (const std::string& name : names.empty() ? official : names) {
    if (name == "official" || name == "set" || name == "all_trec") {
      for (const Family& family : families())
        if (name == "all_trec" || (name == "set" ? family.set : family.official))
          asked.try_emplace(&family);
      continue;
    }
    std::string_view parameters;
    if (const Family* family = find_family(name, parameters)) {
      ask(name, *family, parameters, asked[family]);
    } else if (std::optional<Measure> measure = parse_ir(name)) {
      if (std::none_of(ir_measures.begin(), ir_measures.end(),
                       [&](const Measure& x) { return x.name == name; }))
        ir_measures.push_back(std::move(*measure));
    } else {
      refuse_unknown(name);
    }
  }
  std::vector<Measure> measures;
  for (const Family& family : families())
    if (const auto it = asked.find(&family); it != asked.end())
      append_family(family, it->second, measures);
  std::move(ir_measures.begin(), ir_measures.end(), std::back_inserter(measures));
  return measures;
}

}  // namespace erank::eval
