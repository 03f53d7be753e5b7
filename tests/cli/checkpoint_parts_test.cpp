// A checkpoint's tokenizer and chat template against its weights, in the verbs that read them
// together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "erank/base/files.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

using ::testing::HasSubstr;

class TinyCheckpointParts : public Program {
 protected:
  void SetUp() override {
    put("pair.jsonl", R"({"query": "sky", "document": "Blue."})");
    put("docs.jsonl", R"({"_id": "d", "text": "Blue."})");
    put("data.jsonl", R"({"qid": "1", "docid": "d", "query": "sky", "text": "Blue.", "score": 7, )"
                      R"("thought": "It is blue."})");
  }
  // What each verb that reads a model's texts says.
  std::vector<Outcome> outcomes() {
    return {rerank({"--query", "sky", "--docs", path("docs.jsonl"), "--quiet", "--direct"}),
            run({"prompt", "--model", tiny_model(), "--direct", "--in", path("pair.jsonl")}),
            run({"train", "sft", "--model", tiny_model(), "--data", path("data.jsonl"), "--out",
                 path("out"), "--dry-run"})};
  }
  base::Json read(const std::string& name) {
    const std::string file = tiny_model() + "/" + name;
    return base::parse_json(base::read_file(file), file);
  }
  void write(const std::string& name, const base::Json& json) {
    base::write_file_atomic(tiny_model() + "/" + name, base::dump_json(json));
  }
};

TEST_F(TinyCheckpointParts, AnAddedTokenWithoutARowOfTheEmbeddingIsRefusedByName) {
  base::Json tokenizer = read("tokenizer.json");
  base::Json token = tokenizer["added_tokens"][0];
  token["id"] = 512;
  token["content"] = "<pad>";
  tokenizer["added_tokens"].push_back(token);
  write("tokenizer.json", tokenizer);
  for (const Outcome& o : outcomes())
    expect_refused(o, "added token '<pad>' has id 512, but the embedding has 512 rows");
  const Outcome info = run({"model", "info", tiny_model(), "--json"});
  EXPECT_THAT(info.out, HasSubstr("added token '<pad>' has id 512"));
}

TEST_F(TinyCheckpointParts, AControlTokenOfTheTemplateThatTheTokenizerLacksIsRefusedByName) {
  base::Json config = read("tokenizer_config.json");
  config["chat_template"] =
      "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '\n' + m.content }}{% endfor %}";
  write("tokenizer_config.json", config);
  for (const Outcome& o : outcomes()) expect_refused(o, "'<|start_header_id|>'");
}

TEST_F(TinyCheckpointParts, ATemplateThatOpensTheReasoningIsServedAndTrained) {
  base::Json config = read("tokenizer_config.json");
  config["chat_template"] =
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
      "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}"
      "{% endif %}";
  write("tokenizer_config.json", config);
  const auto all = outcomes();
  for (const Outcome& o : all) EXPECT_EQ(o.exit_code, 0) << o.err;
  const std::string text = json_lines(all[1].out).at(0)["text"];
  EXPECT_TRUE(text.ends_with("<|im_start|>assistant\n<think>\n</think><answer>")) << text;
}

}  // namespace
}  // namespace erank::cli
