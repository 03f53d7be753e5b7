// How fast one thread encodes real documents (nfcorpus and cranfield, title and text), and the
// `tokenizers` package on the same texts in the same run, the two taking turns, in processor time.
// The package's time is the best of its ways to encode. Prints a line of JSON a measurement and one
// with the ratio.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <string>
#include <vector>

#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/text/tokenizer.h"
#include "tests/shared_data.h"

namespace {

using namespace erank;

// A file under the scratch folder, unpacked from `packed`.
std::string unpack(const std::string& packed, const std::string& target) {
  const std::string command = "xz -dc '" + packed + "' > '" + target + "'";
  if (std::system(command.c_str()) != 0) std::exit(1);
  return target;
}

std::vector<std::string> documents(const std::string& scratch) {
  std::vector<std::string> texts;
  for (const char* name : {"beir/nfcorpus/corpus.jsonl.xz", "glasgow/cranfield/corpus.jsonl.xz"}) {
    const std::string packed = erank::testing::shared_data(name);
    if (packed.empty()) continue;
    const std::string all = base::read_file(unpack(packed, scratch + "/corpus.jsonl"));
    for (size_t begin = 0; begin < all.size();) {
      const size_t end = std::min(all.find('\n', begin), all.size());
      const base::Json line =
          base::parse_json(std::string_view(all).substr(begin, end - begin), name);
      texts.push_back(line["title"].get<std::string>() + " " + line["text"].get<std::string>());
      begin = end + 1;
    }
  }
  return texts;
}

struct Result {
  size_t ids = 0;
  double seconds = 1e9;
};

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void ours(const text::Tokenizer& tokenizer, const std::vector<std::string>& texts, Result& best) {
  for (int i = 0; i < 3; ++i) {
    const double begin = thread_seconds();
    best.ids = 0;
    for (const std::string& text : texts) best.ids += tokenizer.encode(text).size();
    best.seconds = std::min(best.seconds, thread_seconds() - begin);
  }
}

// Runs the peer; false when it cannot run.
bool peer(const std::string& kind, const std::string& path, const std::string& texts_file,
          Result& best) {
  const std::string python = erank::testing::test_python(), out = texts_file + ".out";
  const std::string command = "'" + python +
                              "' '" ERANK_SOURCE_DIR "/bench/tokenizer_speed_peer.py' " + kind +
                              " '" + path + "' '" + texts_file + "' > '" + out + "'";
  if (python.empty() || std::system(command.c_str()) != 0) return false;
  const std::string line = base::read_file(out);
  std::fputs(line.c_str(), stdout);
  const base::Json result = base::parse_json(line, "peer");
  best.ids = result["ids"].get<size_t>();
  best.seconds = std::min(best.seconds, result["seconds"].get<double>());
  return true;
}

void measure(const std::string& kind, const std::string& path,
             const std::vector<std::string>& texts, const std::string& texts_file) {
  const text::Tokenizer tokenizer = text::Tokenizer::load(path);
  size_t num_bytes = 0;
  for (const std::string& text : texts) num_bytes += text.size();
  Result mine, theirs;
  bool has_peer = true;
  for (int round = 0; round < 3; ++round) {
    ours(tokenizer, texts, mine);
    has_peer = has_peer && peer(kind, path, texts_file, theirs);
  }
  std::printf(
      "{\"tool\":\"erank\",\"vocabulary\":\"%s\",\"ids\":%zu,\"seconds\":%.4f,\"mb_per_s\":%.1f}\n",
      kind.c_str(), mine.ids, mine.seconds, 1e-6 * static_cast<double>(num_bytes) / mine.seconds);
  if (has_peer)
    std::printf("{\"vocabulary\":\"%s\",\"equal_ids\":%s,\"times_as_fast\":%.2f}\n", kind.c_str(),
                mine.ids == theirs.ids ? "true" : "false", theirs.seconds / mine.seconds);
  std::fflush(stdout);
}

}  // namespace

int main() {
  const auto folder = std::filesystem::temp_directory_path() /
                      ("erank_tokenizer_speed_" + std::to_string(::getpid()));
  const std::string scratch = folder.string();
  std::filesystem::create_directories(folder);
  const std::vector<std::string> texts = documents(scratch);
  const std::string texts_file = scratch + "/texts.json";
  base::write_file_atomic(texts_file, base::dump_json(base::Json(texts)));
  const std::string model = base::cache_folder() + "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (texts.empty()) {
    std::printf("{\"skipped\":\"no nfcorpus or cranfield\"}\n");
  } else {
    if (base::file_exists(model)) measure("gguf", model, texts, texts_file);
    const std::string qwen = erank::testing::shared_data("qwen-tokenizer");
    if (!qwen.empty()) {
      for (const char* name : {"vocab.json", "merges.txt"})
        unpack(qwen + "/" + name + ".xz", scratch + "/" + name);
      base::write_file_atomic(scratch + "/added_tokens.json",
                              base::read_file(qwen + "/added_tokens.qwen3.json"));
      measure("folder", scratch, texts, texts_file);
    }
  }
  std::filesystem::remove_all(folder);
  return 0;
}
