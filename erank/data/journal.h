// An append-only journal of finished work, so that a killed job goes on where it was.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "erank/base/json.h"

namespace erank::data {

// Key -> value entries in one SQLite file (WAL, every commit synced), with a header that says which
// job they belong to. Commits come at most a second after an entry, or after 1,000 of them: a
// killed process loses at most the entries that were not committed yet, never part of one. The file
// is locked while it is open; it must not be on a network file system. All functions are
// thread-safe and may throw Error{kExhausted} for a full disk, also for a commit that failed in the
// background before. A build without SQLite throws Error{kInvalidInput} on open().
class Journal {
 public:
  enum class Start {
    kNew,     // an existing journal is an Error{kInvalidInput}: work is not thrown away unasked
    kResume,  // an existing one must have an equal header, else Error{kInvalidInput} names the key
    kAnew,    // an existing one loses its entries and gets the new header
  };

  // Whether a journal is there, by the file's own first bytes. Throws Error{kInvalidInput} when
  // something else has its name or one of those that SQLite adds to it: that is never touched.
  static bool exists(const std::string& path);

  // Opens or makes the file; a new one appears whole. `header` is an object with all that decides
  // the results (model, options, hashes of inputs). Throws Error{kInvalidInput} while another
  // process has the file open, and as exists() does; Error{kCorrupt} for a damaged file.
  static Journal open(const std::string& path, const base::Json& header, Start start);

  Journal(Journal&&) noexcept;
  Journal& operator=(Journal&&) noexcept;
  ~Journal();  // commits; call commit() before, to see an error

  // Adds an entry; false, and nothing changes, when the key is there already.
  bool append(std::string_view key, std::string_view value);

  // When it returns, all entries so far are on disk.
  void commit();

  // Deletes the file: its work is done. Nothing but the destructor may follow.
  void discard();

  std::optional<std::string> find(std::string_view key) const;
  int64_t size() const;

  // In the order in which they were appended. REQUIRES: `entry` does not use the journal.
  void for_each(
      const std::function<void(std::string_view key, std::string_view value)>& entry) const;

 private:
  struct State;
  explicit Journal(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace erank::data
