// Chat templates: any bytes render one turn within bounds, the same twice, or give an Error.
#include "erank/text/chat_template.h"

#include <cstdint>
#include <string>
#include <string_view>

#include "erank/base/error.h"
#include "tests/fuzz/memory_file.h"

using namespace erank;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const text::ChatConversation turn = {
      .messages = {{"user", "a question"}}, .bos_token = "<s>", .eos_token = "</s>"};
  try {
    const text::ChatTemplate chat(std::string_view(reinterpret_cast<const char*>(data), size));
    const auto rendered = chat.try_render(turn);
    if (rendered)
      fuzz::demand(rendered->size() < size_t{8} << 20 && *rendered == chat.render(turn));
  } catch (const base::Error&) {
  }
  return 0;
}
