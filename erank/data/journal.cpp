#include "erank/data/journal.h"

#include "erank/base/error.h"
#include "erank/base/files.h"

#ifdef ERANK_WITH_SQLITE
#include <sqlite3.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#endif

namespace erank::data {

using base::ErrorKind;
using base::fail;

#ifdef ERANK_WITH_SQLITE
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kWhere = "journal";
constexpr uint32_t kApplicationId = 0x45524a31;  // "ERJ1"
constexpr int kCommitRows = 1000;
constexpr std::chrono::milliseconds kCommitEvery{1000};

[[noreturn]] void fail_sqlite(const std::string& path, int code, const char* message) {
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      fail(ErrorKind::kInvalidInput, kWhere, path,
           ": another process has it open; wait for that job or choose another --out");
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      fail(ErrorKind::kCorrupt, kWhere, path, ": is damaged (", message,
           "); remove it or choose another --out");
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
      fail(ErrorKind::kInvalidInput, kWhere, path, ": cannot write here: ", message);
    case SQLITE_IOERR:
      fail(ErrorKind::kExhausted, kWhere, path, ": ", message,
           "; is the disk damaged, or the file over the limit of `ulimit -f`? --resume goes on");
    default:
      fail(ErrorKind::kExhausted, kWhere, path, ": ", message);
  }
}

class Database {
 public:
  explicit Database(std::string path) : path_(std::move(path)) {
    const int code =
        sqlite3_open_v2(path_.c_str(), &db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
    if (code != SQLITE_OK) {
      const std::string message = db_ ? sqlite3_errmsg(db_) : "out of memory";
      sqlite3_close(db_);
      fail_sqlite(path_, code, message.c_str());
    }
  }
  ~Database() { sqlite3_close(db_); }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  void run(const char* sql) { check(sqlite3_exec(db_, sql, nullptr, nullptr, nullptr)); }
  void check(int code) const {
    if (code != SQLITE_OK && code != SQLITE_ROW && code != SQLITE_DONE)
      fail_sqlite(path_, code, sqlite3_errmsg(db_));
  }
  int num_changed() const { return sqlite3_changes(db_); }
  sqlite3* get() const { return db_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  sqlite3* db_ = nullptr;
};

class Statement {
 public:
  Statement(const Database& database, const char* sql) : database_(database) {
    database.check(sqlite3_prepare_v2(database.get(), sql, -1, &statement_, nullptr));
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  // The text must live until reset().
  void bind(int at, std::string_view text) {
    database_.check(sqlite3_bind_text64(statement_, at, text.data() ? text.data() : "", text.size(),
                                        SQLITE_STATIC, SQLITE_UTF8));
  }
  void bind_blob(int at, std::string_view bytes) {
    database_.check(sqlite3_bind_blob64(statement_, at, bytes.data() ? bytes.data() : "",
                                        bytes.size(), SQLITE_STATIC));
  }
  bool step() {
    const int code = sqlite3_step(statement_);
    database_.check(code);
    return code == SQLITE_ROW;
  }
  std::string_view column(int at) const {
    const void* data = sqlite3_column_blob(statement_, at);
    return {static_cast<const char*>(data),
            static_cast<size_t>(sqlite3_column_bytes(statement_, at))};
  }
  int64_t number(int at) const { return sqlite3_column_int64(statement_, at); }
  void reset() { sqlite3_reset(statement_); }

 private:
  const Database& database_;
  sqlite3_stmt* statement_ = nullptr;
};

// Resets the statement at the end of a scope, whether or not a step threw.
class Reset {
 public:
  explicit Reset(Statement& statement) : statement_(statement) {}
  ~Reset() { statement_.reset(); }

 private:
  Statement& statement_;
};

int64_t read_number(const Database& database, const char* sql) {
  Statement statement(database, sql);
  return statement.step() ? statement.number(0) : 0;
}

std::string shortened(const base::Json& value) {
  std::string text = base::dump_json(value);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

// Throws unless the journal's header equals the job's.
void check_header(const std::string& path, const base::Json& stored, const base::Json& header) {
  const auto differs = [&](const std::string& key) {
    const auto before = stored.find(key), now = header.find(key);
    if (before != stored.end() && now != header.end() && *before == *now) return;
    fail(ErrorKind::kInvalidInput, kWhere, path, ": belongs to another job: '", key, "' was ",
         before == stored.end() ? "not given" : shortened(*before), ", now it is ",
         now == header.end() ? "not given" : shortened(*now),
         "; resume with the same options and inputs, or start anew with --overwrite");
  };
  for (const auto& [key, value] : header.items()) differs(key);
  for (const auto& [key, value] : stored.items()) differs(key);
}

// A journal without entries, as the bytes of its file.
std::string new_journal(const std::string& header) {
  Database memory(":memory:");
  memory.run(base::str("PRAGMA application_id = ", kApplicationId).c_str());
  memory.run("CREATE TABLE header(value TEXT NOT NULL)");
  memory.run(
      "CREATE TABLE entries(number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, "
      "value BLOB NOT NULL)");
  Statement insert(memory, "INSERT INTO header(value) VALUES(?)");
  insert.bind(1, header);
  insert.step();
  insert.reset();
  sqlite3_int64 size = 0;
  const std::unique_ptr<unsigned char, decltype(&sqlite3_free)> bytes(
      sqlite3_serialize(memory.get(), "main", &size, 0), &sqlite3_free);
  if (!bytes) fail(ErrorKind::kExhausted, kWhere, "out of memory");
  return {reinterpret_cast<const char*>(bytes.get()), static_cast<size_t>(size)};
}

// Whether a file begins as SQLite's do, with our application id (sqlite.org/fileformat2.html).
bool begins_as_journal(const std::string& path) {
  constexpr std::string_view kMagic("SQLite format 3\0", 16);
  constexpr size_t kIdAt = 68;
  std::array<char, kIdAt + 4> head{};
  std::ifstream file(path, std::ios::binary);
  if (!file.read(head.data(), head.size()) ||
      !std::string_view(head.data(), head.size()).starts_with(kMagic))
    return false;
  uint32_t id = 0;
  for (size_t i = 0; i < 4; ++i) id = id << 8 | static_cast<unsigned char>(head[kIdAt + i]);
  return id == kApplicationId;
}

}  // namespace

struct Journal::State {
  explicit State(const std::string& path) : database(path) {}

  ~State() {
    {
      const std::lock_guard lock(mutex);
      closing = true;
    }
    wake.notify_all();
    if (committer.joinable()) committer.join();
    try {
      const std::lock_guard lock(mutex);
      commit_locked();
    } catch (const base::Error&) {
      // commit() is where a caller learns of it
    }
  }

  void start() {
    insert.emplace(database, "INSERT OR IGNORE INTO entries(key, value) VALUES(?, ?)");
    select.emplace(database, "SELECT value FROM entries WHERE key = ?");
    count = read_number(database, "SELECT count(*) FROM entries");
    committer = std::thread([this] { commit_in_time(); });
  }

  void commit_in_time() {
    std::unique_lock lock(mutex);
    while (!closing) {
      if (pending == 0) {
        wake.wait(lock);
      } else if (wake.wait_until(lock, deadline) == std::cv_status::timeout && pending > 0 &&
                 Clock::now() >= deadline) {
        try {
          commit_locked();
        } catch (const base::Error&) {
          failure = std::current_exception();
        }
      }
    }
  }

  void commit_locked() {
    if (pending == 0) return;
    pending = 0;
    database.run("COMMIT");
  }

  void rethrow_locked() {
    if (failure) std::rethrow_exception(failure);
  }

  Database database;
  std::optional<Statement> insert;
  mutable std::optional<Statement> select;
  mutable std::mutex mutex;
  std::condition_variable wake;
  std::thread committer;
  Clock::time_point deadline;  // of the open transaction
  int pending = 0;             // entries in the open transaction; 0: none is open
  int64_t count = 0;
  bool closing = false;
  std::exception_ptr failure;  // of a commit in the background
};

bool Journal::exists(const std::string& path) {
  std::error_code none;
  const auto type = fs::symlink_status(path, none).type();
  if (type == fs::file_type::regular && begins_as_journal(path)) return true;
  for (const char* ending : {"", "-wal", "-shm", "-journal"})
    if (const std::string file = path + ending; fs::exists(fs::symlink_status(file, none)))
      fail(ErrorKind::kInvalidInput, kWhere, file,
           ": has the name of a job's journal, but is none; move it away or choose another --out");
  return false;
}

Journal Journal::open(const std::string& path, const base::Json& header, Start start) {
  ERANK_CHECK(header.is_object());
  const std::string text = base::dump_json(header);
  const bool existed = exists(path);
  if (existed && start == Start::kNew)
    fail(ErrorKind::kInvalidInput, kWhere, path,
         ": an unfinished job left this; go on with --resume or start anew with --overwrite");
  if (!existed) {
    base::OutputFile file(path, base::OutputFile::Existing::kKeep);
    file.write(new_journal(text));
    file.commit();
  }
  auto state = std::make_unique<State>(path);
  Database& database = state->database;
  database.run("PRAGMA locking_mode = EXCLUSIVE");
  database.run("PRAGMA journal_mode = WAL");
  database.run("PRAGMA synchronous = FULL");
  database.run("BEGIN EXCLUSIVE");
  if (start == Start::kAnew) {
    database.run("DELETE FROM entries");
    Statement update(database, "UPDATE header SET value = ?");
    update.bind(1, text);
    update.step();
  }
  {
    Statement select(database, "SELECT value FROM header");
    if (!select.step()) fail(ErrorKind::kCorrupt, kWhere, path, ": has no header");
    check_header(path, base::parse_json(select.column(0), path), base::parse_json(text, "header"));
  }
  database.run("COMMIT");
  state->start();
  return Journal(std::move(state));
}

bool Journal::append(std::string_view key, std::string_view value) {
  State& s = *state_;
  const std::lock_guard lock(s.mutex);
  s.rethrow_locked();
  const bool opens = s.pending == 0;
  if (opens) s.database.run("BEGIN");
  bool is_new = false;
  try {
    const Reset reset(*s.insert);
    s.insert->bind(1, key);
    s.insert->bind_blob(2, value);
    s.insert->step();
    is_new = s.database.num_changed() > 0;
  } catch (...) {
    if (opens) sqlite3_exec(s.database.get(), "ROLLBACK", nullptr, nullptr, nullptr);
    throw;
  }
  if (!is_new) {
    if (opens) s.database.run("COMMIT");
    return false;
  }
  ++s.count;
  ++s.pending;
  if (opens) {
    s.deadline = Clock::now() + kCommitEvery;
    s.wake.notify_one();
  }
  if (s.pending >= kCommitRows) s.commit_locked();
  return true;
}

void Journal::commit() {
  const std::lock_guard lock(state_->mutex);
  state_->rethrow_locked();
  state_->commit_locked();
}

std::optional<std::string> Journal::find(std::string_view key) const {
  const std::lock_guard lock(state_->mutex);
  const Reset reset(*state_->select);
  state_->select->bind(1, key);
  if (!state_->select->step()) return std::nullopt;
  return std::string(state_->select->column(0));
}

int64_t Journal::size() const {
  const std::lock_guard lock(state_->mutex);
  return state_->count;
}

void Journal::for_each(const std::function<void(std::string_view, std::string_view)>& entry) const {
  const std::lock_guard lock(state_->mutex);
  Statement select(state_->database, "SELECT key, value FROM entries ORDER BY number");
  while (select.step()) entry(select.column(0), select.column(1));
}

void Journal::discard() {
  State& s = *state_;
  const std::lock_guard lock(s.mutex);
  s.commit_locked();
  // So that all is in one file, whose lock lasts until the destructor; no need to sync it first.
  s.database.run("PRAGMA synchronous = OFF");
  s.database.run("PRAGMA journal_mode = MEMORY");
  if (::unlink(s.database.path().c_str()) != 0)
    fail(ErrorKind::kInvalidInput, kWhere, s.database.path(), ": cannot be removed");
}

#else

struct Journal::State {};

bool Journal::exists(const std::string&) { return false; }
Journal Journal::open(const std::string& path, const base::Json&, Start) {
  fail(ErrorKind::kInvalidInput, "journal", path,
       ": this build has no SQLite, so no job can be journaled; use a full build");
}
bool Journal::append(std::string_view, std::string_view) { return false; }
void Journal::commit() {}
void Journal::discard() {}
std::optional<std::string> Journal::find(std::string_view) const { return std::nullopt; }
int64_t Journal::size() const { return 0; }
void Journal::for_each(const std::function<void(std::string_view, std::string_view)>&) const {}

#endif

Journal::Journal(std::unique_ptr<State> state) : state_(std::move(state)) {}
Journal::Journal(Journal&&) noexcept = default;
Journal& Journal::operator=(Journal&&) noexcept = default;
Journal::~Journal() = default;

}  // namespace erank::data
