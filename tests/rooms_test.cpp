// The layering of docs/architecture.md as a test: who may include whom, where each third party,
// each chat marker and each print may be, how long a file may be. Prints every offending line.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using Set = std::set<std::string>;

// The rooms, and what each may include besides itself.
const std::map<std::string, Set> kMayInclude = {
    {"base", {}},
    {"data", {"base"}},
    {"text", {"base", "data"}},
    {"eval", {"base", "data"}},
    {"retrieve", {"base", "data"}},
    {"synth", {"base", "data", "text"}},
    {"model", {"base", "data"}},
    {"engine", {"base", "model"}},
    {"rank", {"base", "data", "text", "model", "engine"}},
    {"train", {"base", "data", "text", "eval", "model", "engine", "rank"}},
    {"serve", {"base", "data", "text", "rank"}},
};

// The third parties: the beginning of a header's name, and where it may be included.
struct ThirdParty {
  const char* prefix;
  Set places;  // rooms, "cli", or one file
};
const std::vector<ThirdParty> kThirdParties = {
    {"nlohmann/", {"erank/base/json.h"}},
    {"pcre2.h", {"text"}},
    {"utf8proc.h", {"text"}},
    {"libstemmer.h", {"retrieve"}},
    {"sqlite3.h", {"data"}},
    {"xxhash.h", {"data"}},
    {"zlib.h", {"data"}},
    {"zstd.h", {"data"}},
    {"arrow/", {"data"}},
    {"parquet/", {"data"}},
    {"CLI/", {"cli"}},
    {"spdlog/", {"cli"}},
    {"torch/", {"model", "train", "cli"}},
    {"ATen/", {"model", "train", "cli"}},
    {"c10/", {"model", "train", "cli"}},
    {"cuda", {"model"}},
    {"cublas", {"model"}},
    {"mma.h", {"model"}},
    {"mpi.h", {"train"}},
    {"nccl.h", {"train"}},
    {"curl/", {"synth"}},
    {"boost/", {"serve"}},
    {"openssl/", {"serve"}},
    {"prometheus/", {"serve"}},
};
const Set kTorch = {"torch/", "ATen/", "c10/"};

// Headers of the system that have a dot or a slash; those of C++ have neither.
const std::regex kSystemHeader(
    R"([a-z0-9_]+|(assert|ctype|dirent|dlfcn|errno|fcntl|float|fnmatch|limits|locale|math|netdb|omp|poll|pthread|sched|semaphore|signal|stdint|stddef|stdio|stdlib|string|strings|termios|time|unistd|wchar|wctype|immintrin|x86intrin|arm_neon|cpuid)\.h|(sys|netinet|arpa|linux)/[a-z0-9_]+\.h)");

constexpr int kMaxLines = 600, kMaxHeaderLines = 300, kHeadLines = 15;

struct Source {
  std::string path;                // from the repository's root
  std::vector<std::string> lines;  // as they are
  std::vector<std::string> code;   // without comments and without what is between quotes
};

struct Offence {
  std::string path;
  size_t line;  // from 1
  std::string what;
};
using Offences = std::vector<Offence>;

// "model" of "erank/model/kernels/x.cpp", "cli" of "cli/x.cpp".
std::string room_of(const std::string& path) {
  const size_t begin = path.starts_with("erank/") ? 6 : 0;
  return path.substr(begin, path.find('/', begin) - begin);
}
bool is_header(const std::string& path) { return path.ends_with(".h") || path.ends_with(".cuh"); }

// The code of each line, comments and the insides of quotes taken out. Raw strings are known in the
// form R"(...)" alone.
std::vector<std::string> code_of(const std::vector<std::string>& lines) {
  std::vector<std::string> out;
  enum { kCode, kComment, kRaw } state = kCode;
  for (const std::string& line : lines) {
    std::string code;
    for (size_t i = 0; i < line.size(); ++i) {
      const auto at = [&](const char* text) {
        return line.compare(i, std::strlen(text), text) == 0;
      };
      if (state == kComment) {
        if (at("*/")) state = kCode, ++i;
      } else if (state == kRaw) {
        if (at(")\"")) state = kCode, ++i;
      } else if (at("//")) {
        break;
      } else if (at("/*")) {
        state = kComment, ++i;
      } else if (at("R\"(")) {
        state = kRaw, i += 2;
      } else if (line[i] == '"' || (line[i] == '\'' && (i == 0 || !isalnum(line[i - 1])))) {
        const char quote = line[i];
        for (++i; i < line.size() && line[i] != quote; ++i)
          if (line[i] == '\\') ++i;
        code += "\"\"";
      } else {
        code += line[i];
      }
    }
    out.push_back(std::move(code));
  }
  return out;
}

Source make_source(const std::string& path, const std::string& text) {
  Source source{path, {}, {}};
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) source.lines.push_back(line);
  source.code = code_of(source.lines);
  return source;
}

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<Source> sources_under(const std::vector<std::string>& folders, const Set& endings) {
  const fs::path root = ERANK_SOURCE_DIR;
  std::vector<Source> sources;
  for (const std::string& folder : folders) {
    if (!fs::exists(root / folder)) continue;
    for (auto it = fs::recursive_directory_iterator(root / folder);
         it != fs::recursive_directory_iterator(); ++it) {
      if (it->is_directory() && it->path().filename() == "node_modules")
        it.disable_recursion_pending();
      if (it->is_regular_file() && endings.contains(it->path().extension().string()))
        sources.push_back(make_source(fs::relative(it->path(), root).string(), read(it->path())));
    }
  }
  std::sort(sources.begin(), sources.end(),
            [](const Source& a, const Source& b) { return a.path < b.path; });
  return sources;
}

struct Include {
  size_t line;
  std::string name;
  bool quoted;
};

std::vector<Include> includes_of(const Source& source) {
  static const std::regex pattern(R"re(^\s*#\s*include\s*([<"])([^>"]+)[>"])re");
  std::vector<Include> includes;
  std::smatch match;
  for (size_t i = 0; i < source.lines.size(); ++i)
    if (std::regex_search(source.lines[i], match, pattern))
      includes.push_back({i + 1, match[2], match[1] == "\""});
  return includes;
}

// Own headers: only "erank/<room>/..." of the rooms allowed, and "cli/..." within cli.
Offences check_rooms(const std::vector<Source>& sources) {
  Offences offences;
  for (const Source& source : sources) {
    const std::string room = room_of(source.path);
    const auto table = kMayInclude.find(room);
    if (room != "cli" && table == kMayInclude.end()) {
      offences.push_back({source.path, 1, "room '" + room + "' is not in the table"});
      continue;
    }
    for (const Include& include : includes_of(source)) {
      if (!include.quoted) continue;
      const std::string target = room_of(include.name);
      const bool own = include.name.starts_with("erank/") && kMayInclude.contains(target);
      const bool allowed = room == "cli"
                               ? own || target == "cli"
                               : own && (target == room || table->second.contains(target));
      if (!allowed)
        offences.push_back({source.path, include.line, room + " may not include " + include.name});
    }
  }
  return offences;
}

// Headers in <>: the system's, or a third party where it lives.
Offences check_third_parties(const std::vector<Source>& sources) {
  Offences offences;
  for (const Source& source : sources) {
    const std::string room = room_of(source.path);
    for (const Include& include : includes_of(source)) {
      if (include.quoted) continue;
      const auto party =
          std::find_if(kThirdParties.begin(), kThirdParties.end(),
                       [&](const ThirdParty& x) { return include.name.starts_with(x.prefix); });
      if (party == kThirdParties.end()) {
        if (!std::regex_match(include.name, kSystemHeader))
          offences.push_back({source.path, include.line,
                              "<" + include.name + "> is neither the system's nor in the table"});
      } else if (!party->places.contains(room) && !party->places.contains(source.path)) {
        offences.push_back(
            {source.path, include.line, "<" + include.name + "> does not live here"});
      }
    }
  }
  return offences;
}

// No header that a header of rank/ brings in, however deep, may be libtorch's.
Offences check_rank_headers(const std::vector<Source>& sources) {
  std::map<std::string, const Source*> by_path;
  for (const Source& source : sources) by_path[source.path] = &source;
  Offences offences;
  for (const Source& source : sources) {
    if (room_of(source.path) != "rank" || !is_header(source.path)) continue;
    Set seen = {source.path};
    std::vector<std::pair<const Source*, std::string>> open = {{&source, source.path}};
    while (!open.empty()) {
      const auto [at, way] = open.back();
      open.pop_back();
      for (const Include& include : includes_of(*at)) {
        const bool torch = std::any_of(
            kTorch.begin(), kTorch.end(),
            [&](const std::string& prefix) { return include.name.starts_with(prefix); });
        if (torch) offences.push_back({at->path, include.line, way + " brings in " + include.name});
        const auto next = by_path.find(include.name);
        if (next != by_path.end() && seen.insert(include.name).second)
          open.emplace_back(next->second, way + " -> " + include.name);
      }
    }
  }
  return offences;
}

Offences check_lines(const std::vector<Source>& sources, const std::regex& pattern,
                     const std::string& what, bool in_code, const Set& allowed_rooms) {
  Offences offences;
  for (const Source& source : sources) {
    if (allowed_rooms.contains(room_of(source.path))) continue;
    const auto& lines = in_code ? source.code : source.lines;
    for (size_t i = 0; i < lines.size(); ++i)
      if (std::regex_search(lines[i], pattern))
        offences.push_back({source.path, i + 1, what + ": " + source.lines[i]});
  }
  return offences;
}

// The markers are spelled apart, so that this file has none.
Offences check_chat_markers(const std::vector<Source>& sources) {
  static const std::regex markers(R"(<\|(im_start|im_end|endoftext)\|>|</?(think|answer)>|\bHuman)"
                                  ":");
  return check_lines(sources, markers, "chat marker outside erank/text", false, {"text"});
}

Offences check_printing_and_ending(const std::vector<Source>& sources) {
  static const std::regex calls(
      R"(\bstd::(cout|cerr|clog)\b|(^|[^\w.>])(std::|::)?(printf|puts|putchar)\s*\(|\bfprintf\s*\(\s*(stdout|stderr)|(^|[^\w.>])(std::|::)?(exit|_exit|_Exit|quick_exit|abort|terminate)\s*\()");
  return check_lines(sources, calls, "prints or ends the program outside cli", true, {"cli"});
}

Offences check_lengths(const std::vector<Source>& sources) {
  static const std::regex reason(R"((\blong\b|\blines\b)[^.]*\bbecause\b)");
  Offences offences;
  for (const Source& source : sources) {
    const int limit = is_header(source.path) ? kMaxHeaderLines : kMaxLines;
    if (source.lines.size() <= static_cast<size_t>(limit)) continue;
    std::string head;
    for (size_t i = 0; i < source.lines.size() && i < kHeadLines; ++i)
      head += " " + std::regex_replace(source.lines[i], std::regex(R"(^\s*(//|#)?\s*)"), "");
    if (!std::regex_search(head, reason))
      offences.push_back({source.path, 1,
                          std::to_string(source.lines.size()) + " lines, at most " +
                              std::to_string(limit) + "; or say in its first " +
                              std::to_string(kHeadLines) + " lines: \"... long because ...\""});
  }
  return offences;
}

// The rooms of the first fenced block that starts with `erank/`: its lines "  <room>/ ...".
// Empty when there is no such block.
Set rooms_of_readme(const std::string& text) {
  std::istringstream in(text);
  Set rooms;
  bool fenced = false, block = false;
  std::smatch match;
  for (std::string line, previous; std::getline(in, line); previous = line) {
    if (line.starts_with("```")) {
      if (block) break;
      fenced = !fenced;
    } else if (fenced && previous.starts_with("```")) {
      block = line.starts_with("erank/");
    } else if (block && !line.starts_with(" ")) {
      break;
    } else if (block && std::regex_search(line, match, std::regex(R"(^  ([a-z_]+)/)"))) {
      rooms.insert(match[1]);
    }
  }
  return rooms;
}

const std::vector<Source>& library_and_cli() {
  static const auto sources =
      sources_under({"erank", "cli"}, {".h", ".cpp", ".cu", ".cuh", ".inc"});
  return sources;
}

void expect_none(const Offences& offences) {
  for (const Offence& offence : offences)
    ADD_FAILURE() << offence.path << ":" << offence.line << ": " << offence.what;
}

TEST(Rooms, IncludeOnlyWhatTheTableAllows) {
  ASSERT_GT(library_and_cli().size(), 20u);
  expect_none(check_rooms(library_and_cli()));
}
TEST(Rooms, KeepEveryThirdPartyInItsPlace) { expect_none(check_third_parties(library_and_cli())); }
TEST(Rooms, KeepLibtorchOutOfTheHeadersOfRank) {
  expect_none(check_rank_headers(library_and_cli()));
}
TEST(Rooms, WriteChatMarkersInTextAlone) {
  expect_none(check_chat_markers(
      sources_under({"erank", "cli", "bench", "web"},
                    {".h", ".cpp", ".cu", ".cuh", ".inc", ".py", ".ts", ".html"})));
}
TEST(Rooms, PrintAndExitInCliAlone) { expect_none(check_printing_and_ending(library_and_cli())); }
TEST(Rooms, SayWhyWhenAFileIsLong) {
  expect_none(check_lengths(sources_under({"erank", "cli", "tests", "bench", "tools", "web"},
                                          {".h", ".cpp", ".cu", ".cuh", ".inc", ".py", ".ts"})));
}
TEST(Rooms, AreTheOnesThatReadmeLists) {
  const fs::path root = ERANK_SOURCE_DIR;
  if (!fs::exists(root / "README.md")) GTEST_SKIP() << "there is no README.md yet";
  Set folders;
  for (const auto& entry : fs::directory_iterator(root / "erank"))
    if (entry.is_directory() && !fs::is_empty(entry)) folders.insert(entry.path().filename());
  EXPECT_EQ(rooms_of_readme(read(root / "README.md")), folders);
}

// The checks themselves must be able to fail.

std::vector<std::string> found(const Offences& offences) {
  std::vector<std::string> places;
  for (const Offence& offence : offences)
    places.push_back(offence.path + ":" + std::to_string(offence.line));
  return places;
}
using Places = std::vector<std::string>;

TEST(RoomChecks, FindIncludesAgainstTheTable) {
  const std::vector<Source> sources = {
      make_source("erank/data/a.cpp",
                  "#include \"erank/base/error.h\"\n"
                  "#include \"erank/text/tokenizer.h\"\n"
                  "// #include \"erank/model/parameters.h\"\n"),
      make_source("erank/serve/a.h", "#include \"erank/train/trainer.h\"\n"),
      make_source("erank/train/a.h", "  #  include \"erank/serve/server.h\"\n"),
      make_source("erank/rank/b.cpp", "#include \"reranker.h\"\n#include \"cli/verbs.h\"\n"),
      make_source("erank/new/b.cpp", ""),
      make_source("cli/b.cpp", "#include \"cli/verbs.h\"\n#include \"erank/serve/server.h\"\n")};
  EXPECT_EQ(found(check_rooms(sources)),
            (Places{"erank/data/a.cpp:2", "erank/serve/a.h:1", "erank/train/a.h:1",
                    "erank/rank/b.cpp:1", "erank/rank/b.cpp:2", "erank/new/b.cpp:1"}));
}

TEST(RoomChecks, FindThirdPartiesOutsideTheirRoom) {
  const std::vector<Source> sources = {
      make_source("erank/base/json.h", "#include <nlohmann/json.hpp>\n#include <string>\n"),
      make_source("erank/base/json.cpp", "#include <nlohmann/json.hpp>\n"),
      make_source("erank/text/a.cpp", "#include <pcre2.h>\n#include <ATen/core/Tensor.h>\n"),
      make_source("erank/serve/a.cpp", "#include <torch/torch.h>\n#include <sys/stat.h>\n"),
      make_source("erank/model/a.cpp", "#include <c10/util/Half.h>\n#include <fmt/core.h>\n"),
      make_source("erank/data/a.cpp", "#include <zlib.h>\n#include <CLI/CLI.hpp>\n")};
  EXPECT_EQ(found(check_third_parties(sources)),
            (Places{"erank/base/json.cpp:1", "erank/text/a.cpp:2", "erank/serve/a.cpp:1",
                    "erank/model/a.cpp:2", "erank/data/a.cpp:2"}));
}

TEST(RoomChecks, FollowTheHeadersOfRankToLibtorch) {
  const std::vector<Source> sources = {
      make_source("erank/rank/reranker.h", "#include \"erank/engine/engine.h\"\n"),
      make_source("erank/engine/engine.h", "\n#include \"erank/model/parameters.h\"\n"),
      make_source("erank/model/parameters.h", "#include <ATen/core/Tensor.h>\n"),
      make_source("erank/rank/reranker.cpp", "#include <ATen/core/Tensor.h>\n")};
  EXPECT_EQ(found(check_rank_headers(sources)), (Places{"erank/model/parameters.h:1"}));
}

TEST(RoomChecks, FindChatMarkersButNotInText) {
  const std::string markers = std::string("a <") + "|im_end|>\nb <" + "/answer>\nc Human" + ":\n";
  EXPECT_EQ(found(check_chat_markers({make_source("erank/text/a.cpp", markers),
                                      make_source("erank/rank/a.cpp", markers + "subhuman: x\n")})),
            (Places{"erank/rank/a.cpp:1", "erank/rank/a.cpp:2", "erank/rank/a.cpp:3"}));
}

TEST(RoomChecks, FindPrintsAndExitsButNotInCommentsAndStrings) {
  const std::string text =
      "std::cout << 1;\nprintf(\"x\");\nsnprintf(b, 9, \"printf(\");\nfprintf(stderr, \"x\");\n"
      "std::exit(1);\n  exit(2);\non_exit(3);\napp.exit(e);\n// exit(1)\n/* printf(\n std::cout */ "
      "abort();\nconst char c = '\"'; puts(c);\nR\"(std::cout\nexit(1))\" ; std::_Exit(1);\n";
  EXPECT_EQ(found(check_printing_and_ending({make_source("erank/eval/a.cpp", text)})),
            (Places{"erank/eval/a.cpp:1", "erank/eval/a.cpp:2", "erank/eval/a.cpp:4",
                    "erank/eval/a.cpp:5", "erank/eval/a.cpp:6", "erank/eval/a.cpp:11",
                    "erank/eval/a.cpp:12", "erank/eval/a.cpp:14"}));
  EXPECT_TRUE(check_printing_and_ending({make_source("cli/a.cpp", text)}).empty());
}

TEST(RoomChecks, FindLongFilesWithoutAReason) {
  const std::string body(301, '\n');
  EXPECT_EQ(found(check_lengths({make_source("erank/eval/a.h", body),
                                 make_source("erank/eval/b.h",
                                             "// A table, long\n// because the "
                                             "standard has so many.\n" +
                                                 body),
                                 make_source("erank/eval/c.cpp", body),
                                 make_source("tools/d.py", body + body)})),
            (Places{"erank/eval/a.h:1", "tools/d.py:1"}));
}

TEST(RoomChecks, ReadTheRoomsOfAReadme) {
  EXPECT_EQ(
      rooms_of_readme("# x\n```\nmake demo\n```\n```text\nerank/   the library\n  base/  files\n"
                      "            more of base/\n  data/  x\ncli/   y\n  no/\n```\n"),
      (Set{"base", "data"}));
  EXPECT_EQ(rooms_of_readme("erank/\n  base/\n"), Set{});
}

}  // namespace
