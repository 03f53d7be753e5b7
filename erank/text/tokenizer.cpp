#include "erank/text/tokenizer.h"

#include <atomic>
#include <unordered_map>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/utf8.h"
#include "erank/text/bpe_cache.h"
#include "erank/text/bpe_model.h"
#include "erank/text/tokenizer_added.h"
#include "erank/text/tokenizer_nfc.h"
#include "erank/text/tokenizer_spec.h"

namespace erank::text {

using base::ErrorKind;
using base::fail;

namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 31;

// Numbers tokenizers, so that a thread's cache never mistakes one for another at the same address.
uint32_t next_owner() {
  static std::atomic<uint32_t> last{0};
  const uint32_t owner = ++last;
  ERANK_CHECK(owner != 0, "more than 2^32 tokenizers");
  return owner;
}

}  // namespace

struct Tokenizer::Tables {
  explicit Tables(TokenizerSpec spec);

  void encode_part(std::string_view raw, BpeCache& cache, Ids& ids, bool parse_specials) const;
  void encode_normalized(std::string_view text, BpeCache& cache, Ids& ids) const;
  void encode_word(std::string_view word, BpeCache& cache, Ids& ids) const;
  bool has(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < pieces.size() &&
           !pieces[static_cast<size_t>(id)].empty();
  }
  void check_id(int32_t id) const;

  uint32_t owner = next_owner();
  std::string where;
  std::vector<std::string> pieces;  // by id, added tokens' texts included; "" for none
  std::vector<std::string> bytes;   // by id
  std::unordered_map<std::string_view, int32_t> id_of_bytes;  // views into `bytes`; ordinary pieces
  std::unordered_map<std::string, int32_t> added;
  AddedTokenMatcher raw_matcher, normalized_matcher;
  std::unique_ptr<const BpeModel> bpe;
  SplitSteps steps;
  bool ignore_merges = false;
  bool nfc = false;
  std::optional<int32_t> bos, eos;
  std::string bos_text, eos_text, chat_template;
};

Tokenizer::Tables::Tables(TokenizerSpec spec)
    : where(spec.where),
      pieces(std::move(spec.pieces)),
      steps(std::move(spec.steps)),
      ignore_merges(spec.ignore_merges),
      nfc(spec.nfc),
      bos_text(std::move(spec.bos)),
      eos_text(std::move(spec.eos)),
      chat_template(std::move(spec.chat_template)) {
  enum : uint8_t { kOrdinary = 0, kAdded = 1, kNotText = 2 };  // kNotText: merges never make it
  std::vector<uint8_t> kinds(pieces.size(), kOrdinary);
  for (const int32_t id : spec.unused) kinds[static_cast<size_t>(id)] = kNotText;
  for (const AddedToken& token : spec.added) {
    const auto id = static_cast<size_t>(token.id);
    const auto [known, fresh] = added.emplace(token.content, token.id);
    if (!fresh && known->second != token.id)
      fail(ErrorKind::kCorrupt, "Tokenizer", spec.where, ": added token '", token.content,
           "' has ids ", known->second, " and ", id);
    if (!fresh) continue;
    if (id >= pieces.size()) pieces.resize(id + 1), kinds.resize(id + 1, kOrdinary);
    if (!pieces[id].empty() && pieces[id] != token.content)
      fail(ErrorKind::kCorrupt, "Tokenizer", spec.where, ": added token '", token.content,
           "' has the id ", id, " of '", pieces[id], "'");
    // A byte that doubles as a special token (a "!" for padding) has no other id to be written by.
    const bool is_byte = token.content.size() == 1;
    kinds[id] = !pieces[id].empty() && (!token.special || is_byte) ? kAdded : kNotText;
    pieces[id] = token.content;
  }

  bytes.reserve(pieces.size());
  id_of_bytes.reserve(pieces.size());
  for (size_t id = 0; id < pieces.size(); ++id) {
    auto spelled = bytes_of_piece(pieces[id]);
    // An added token's text is itself, also where each of its characters spells a byte.
    const bool is_text =
        spelled.has_value() && !spelled->empty() &&
        (kinds[id] == kOrdinary || (kinds[id] == kAdded && *spelled == pieces[id]));
    bytes.push_back(spelled && kinds[id] == kOrdinary ? std::move(*spelled) : pieces[id]);
    if (!is_text) continue;
    const auto [known, fresh] = id_of_bytes.emplace(bytes.back(), static_cast<int32_t>(id));
    if (!fresh)
      fail(ErrorKind::kCorrupt, "Tokenizer", spec.where, ": '", pieces[id], "' has ids ",
           known->second, " and ", id);
  }

  std::array<int32_t, 256> byte_ids;
  for (size_t b = 0; b < 256; ++b) {
    const auto found = id_of_bytes.find(std::string(1, static_cast<char>(b)));
    byte_ids[b] = found == id_of_bytes.end() ? -1 : found->second;
  }
  std::vector<BpeMerge> merges;
  merges.reserve(spec.merges.size());
  const auto find_bytes = [&](const std::string& spelled) -> std::optional<int32_t> {
    const auto found = id_of_bytes.find(spelled);
    if (found == id_of_bytes.end()) return std::nullopt;
    return found->second;
  };
  const auto find = [&](const std::string& piece) -> std::optional<int32_t> {
    const auto spelled = bytes_of_piece(piece);
    return spelled ? find_bytes(*spelled) : std::nullopt;
  };
  for (const auto& [left, right] : spec.merges) {
    const auto left_bytes = bytes_of_piece(left), right_bytes = bytes_of_piece(right);
    if (!left_bytes || !right_bytes) continue;
    const auto l = find_bytes(*left_bytes), r = find_bytes(*right_bytes);
    const auto both = find_bytes(*left_bytes + *right_bytes);
    if (l && r && both) merges.push_back({*l, *r, *both});
  }
  bpe = std::make_unique<const BpeModel>(byte_ids, std::move(merges));

  std::vector<AddedToken> raw, normalized;
  for (AddedToken& token : spec.added) {
    if (token.normalized && nfc) {
      std::string storage;
      token.content = std::string(text::nfc(token.content, storage));
    }
    (token.normalized ? normalized : raw).push_back(std::move(token));
  }
  raw_matcher = AddedTokenMatcher(std::move(raw));
  normalized_matcher = AddedTokenMatcher(std::move(normalized));
  const auto id_of = [&](const std::string& text, const char* what) -> std::optional<int32_t> {
    if (text.empty()) return std::nullopt;
    if (const auto found = added.find(text); found != added.end()) return found->second;
    if (const auto id = find(text)) return id;
    fail(ErrorKind::kCorrupt, "Tokenizer", spec.where, ": ", what, " '", text,
         "' is not in the vocabulary");
  };
  bos = id_of(bos_text, "bos_token");
  eos = id_of(eos_text, "eos_token");
}

void Tokenizer::Tables::encode_word(std::string_view word, BpeCache& cache, Ids& ids) const {
  if (word.size() > BpeCache::kMaxBytes) {
    if (ignore_merges)
      if (const auto found = id_of_bytes.find(word); found != id_of_bytes.end())
        return ids.push_back(found->second);
    bpe->encode_word(word, ids);
    return;
  }
  const BpeCache::Key key(word, owner);
  if (cache.find(key, ids)) return;
  const size_t before = ids.size();
  const auto whole = ignore_merges ? id_of_bytes.find(word) : id_of_bytes.end();
  if (whole != id_of_bytes.end()) {
    ids.push_back(whole->second);
  } else {
    bpe->encode_word(word, ids);
  }
  cache.insert(key, ids.data() + before, ids.size() - before);
}

void Tokenizer::Tables::encode_normalized(std::string_view text, BpeCache& cache, Ids& ids) const {
  steps.for_each(text, [&](std::string_view word) { encode_word(word, cache, ids); });
}

void Tokenizer::Tables::encode_part(std::string_view raw, BpeCache& cache, Ids& ids,
                                    bool parse_specials) const {
  std::string storage;
  const std::string_view text = nfc ? text::nfc(raw, storage) : raw;
  if (!parse_specials || normalized_matcher.empty()) return encode_normalized(text, cache, ids);
  size_t done = 0;
  for (const auto& match : normalized_matcher.find_all(text)) {
    if (match.begin > done) encode_normalized(text.substr(done, match.begin - done), cache, ids);
    ids.push_back(match.id);
    done = match.end;
  }
  encode_normalized(text.substr(done), cache, ids);
}

void Tokenizer::Tables::check_id(int32_t id) const {
  if (!has(id))
    fail(ErrorKind::kInvalidInput, "Tokenizer", "id ", id, " is not in the vocabulary (0 to ",
         pieces.size() - 1, ")");
}

Tokenizer Tokenizer::load(const std::string& path, const std::string& adapter) {
  if (!adapter.empty() && has_tokenizer(adapter)) return load(adapter);
  const bool folder = base::folder_exists(path);
  if (!folder && !path.ends_with(".gguf"))
    fail(ErrorKind::kNotFound, "Tokenizer", path,
         ": expected a folder with tokenizer.json (or vocab.json and merges.txt), or a .gguf file");
  TokenizerSpec spec = folder ? spec_from_folder(path) : spec_from_gguf(path);
  if (!adapter.empty())
    if (std::string own = chat_template_of(adapter); !own.empty())
      spec.chat_template = std::move(own);
  return Tokenizer(std::make_unique<const Tables>(std::move(spec)));
}

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json) {
  return Tokenizer(
      std::make_unique<const Tables>(spec_from_json(tokenizer_json, "tokenizer.json")));
}

Tokenizer::Tokenizer(std::unique_ptr<const Tables> tables) : tables_(std::move(tables)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Ids Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  if (text.size() > kMaxTextBytes)
    fail(ErrorKind::kExhausted, "Tokenizer", "a text of ", text.size(), " bytes; expected at most ",
         kMaxTextBytes);
  std::string storage;
  if (!is_ascii(text) && !base::is_valid_utf8(text)) {
    storage = base::sanitize_utf8(text);
    text = storage;
  }
  BpeCache& cache = BpeCache::of_this_thread();
  Ids ids;
  ids.reserve(text.size() / 4 + 8);
  size_t done = 0;
  if (options.parse_specials)
    for (const auto& match : tables_->raw_matcher.find_all(text)) {
      if (match.begin > done)
        tables_->encode_part(text.substr(done, match.begin - done), cache, ids, true);
      ids.push_back(match.id);
      done = match.end;
    }
  tables_->encode_part(text.substr(done), cache, ids, options.parse_specials);
  return ids;
}

std::string Tokenizer::decode(const Ids& ids) const {
  std::string joined;
  for (const int32_t id : ids) joined += bytes_of(id);
  return base::is_valid_utf8(joined) ? joined : base::sanitize_utf8(joined);
}

bool Tokenizer::has(int32_t id) const { return tables_->has(id); }

const std::string& Tokenizer::bytes_of(int32_t id) const {
  tables_->check_id(id);
  return tables_->bytes[static_cast<size_t>(id)];
}

const std::string& Tokenizer::piece_of(int32_t id) const {
  tables_->check_id(id);
  return tables_->pieces[static_cast<size_t>(id)];
}

std::optional<int32_t> Tokenizer::special(std::string_view token) const {
  const auto found = tables_->added.find(std::string(token));
  if (found == tables_->added.end()) return std::nullopt;
  return found->second;
}

std::optional<int32_t> Tokenizer::token_for(std::string_view bytes) const {
  const auto found = tables_->id_of_bytes.find(bytes);
  if (found == tables_->id_of_bytes.end() ||
      tables_->added.contains(tables_->pieces[static_cast<size_t>(found->second)]))
    return std::nullopt;
  return found->second;
}

const std::string& Tokenizer::where() const { return tables_->where; }
int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(tables_->pieces.size()); }
std::optional<int32_t> Tokenizer::eos_id() const { return tables_->eos; }
std::optional<int32_t> Tokenizer::bos_id() const { return tables_->bos; }
const std::string& Tokenizer::chat_template() const { return tables_->chat_template; }
std::string Tokenizer::bos_token() const { return tables_->bos_text; }
std::string Tokenizer::eos_token() const { return tables_->eos_text; }

}  // namespace erank::text
