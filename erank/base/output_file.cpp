// The writing half of files.h.
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/files.h"

namespace erank::base {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWhere = "write_file";
constexpr const char* kTemporary = ".erank-tmp-";
constexpr size_t kBufferBytes = size_t{1} << 20;

std::string reason() { return std::strerror(errno); }

// "a/b" -> "a/", "b"; a name without a folder is in "./".
std::pair<std::string, std::string> split(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return {"./", path};
  return {path.substr(0, slash + 1), path.substr(slash + 1)};
}

// N of /proc/self/fd/N under any of its names, else -1.
int own_descriptor(const std::string& path) {
  const auto [folder, name] = split(path);
  if (name.empty() || name.size() > 9 || name.find_first_not_of("0123456789") != name.npos)
    return -1;
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(folder.c_str(), nullptr),
                                                         &std::free);
  if (!real) return -1;
  const std::string_view where = real.get();
  const std::string own = str("/proc/", ::getpid());
  const bool is_own =
      where == own + "/fd" || (where.starts_with(own + "/task/") && where.ends_with("/fd"));
  return is_own ? std::stoi(name) : -1;
}

// ".out.jsonl.erank-tmp-" for "out.jsonl": what every temporary name of that file begins with.
std::string temporary_prefix(const std::string& name) {
  constexpr size_t kLongest = 200;  // of the 255 bytes that a name may have
  return str(".", name.substr(0, kLongest), kTemporary);
}

std::string temporary_name(const std::string& path) {
  const auto [folder, name] = split(path);
  uint64_t number = 0;
  if (::getrandom(&number, sizeof number, 0) != sizeof number)
    fail(ErrorKind::kExhausted, kWhere, path, ": no random numbers: ", reason());
  return str(folder, temporary_prefix(name), ::getpid(), "-", std::hex, number);
}

void sync_folder(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

bool is_same_file(const std::string& a, const std::string& b) {
  struct stat first {};
  struct stat second {};
  if (::stat(a.c_str(), &first) != 0 || ::stat(b.c_str(), &second) != 0) return false;
  return (S_ISREG(first.st_mode) || S_ISBLK(first.st_mode)) && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

OutputTarget output_target(const std::string& path) {
  constexpr int kMaxLinks = 40;  // as in the kernel
  if (path == "-") return {OutputTarget::kStream, path, STDOUT_FILENO};
  if (path.empty()) fail(ErrorKind::kInvalidInput, kWhere, "expected a file's name, this is empty");
  OutputTarget target{OutputTarget::kNew, path, -1};
  for (int links = 0; links <= kMaxLinks; ++links) {
    const std::string folder = split(target.path).first;
    target.descriptor = own_descriptor(target.path);
    struct stat info {};
    struct stat link {};
    const bool there = ::stat(target.path.c_str(), &info) == 0;
    if (!there && errno == ELOOP) break;
    if (!there && errno != ENOENT)
      fail(ErrorKind::kInvalidInput, kWhere, path, ": cannot write here: ", reason());
    const bool named = ::lstat(target.path.c_str(), &link) == 0;
    if (target.descriptor < 0 && named && S_ISLNK(link.st_mode)) {
      std::error_code error;
      const std::string next = fs::read_symlink(target.path, error);
      const std::string next_path = next.starts_with('/') ? next : folder + next;
      // What another process has open may have no name: its link in /proc leads there all the same.
      if (!there || fs::exists(next_path, error)) {
        target.path = next_path;
        continue;
      }
    }
    if (!there && target.descriptor < 0) {
      if (!folder_exists(folder))
        fail(ErrorKind::kNotFound, kWhere, path, ": there is no folder ", folder);
    } else if (there && S_ISDIR(info.st_mode)) {
      target.kind = OutputTarget::kFolder;
    } else if (target.descriptor >= 0 || !S_ISREG(info.st_mode) || S_ISLNK(link.st_mode)) {
      target.kind = OutputTarget::kStream;
    } else {
      target.kind = OutputTarget::kFile;
    }
    return target;
  }
  fail(ErrorKind::kInvalidInput, kWhere, path,
       ": its links lead in a circle, expected them to end at a file's name");
}

WriteLock::WriteLock(const std::string& path) {
  const auto [folder, file] = split(path);
  // Named as temporary files are, so that remove_files_of() finds what a killed process left.
  name_ = folder + temporary_prefix(file) + "lock";
  for (;;) {
    fd_ = ::open(name_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd_ < 0) return;
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      char who[200];
      const ssize_t n = ::pread(fd_, who, sizeof who, 0);
      ::close(fd_);
      fail(ErrorKind::kInvalidInput, kWhere, path, ": ",
           n > 0 ? std::string_view(who, static_cast<size_t>(n)) : "another process",
           " is writing it; wait for its end or choose another --out");
    }
    // Its last holder may have removed the name before the lock was ours.
    struct stat mine {};
    struct stat named {};
    if (::fstat(fd_, &mine) == 0 && ::stat(name_.c_str(), &named) == 0 &&
        mine.st_dev == named.st_dev && mine.st_ino == named.st_ino)
      break;
    ::close(fd_);
  }
  char host[100] = "?";
  ::gethostname(host, sizeof host - 1);
  const std::string who = str("process ", ::getpid(), " on ", host);
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, who.data(), who.size(), 0) < 0)
    errno = 0;  // a full disk: the lock is held all the same
}

WriteLock::WriteLock(WriteLock&& other) noexcept
    : name_(std::move(other.name_)), fd_(std::exchange(other.fd_, -1)) {}

WriteLock::~WriteLock() {
  if (fd_ < 0) return;
  ::unlink(name_.c_str());
  ::close(fd_);
}

OutputFile::OutputFile(const std::string& path, Existing existing,
                       const std::function<bool()>& stop)
    : path_(path), target_(output_target(path)), existing_(existing) {
  if (target_.kind == OutputTarget::kFolder)
    fail(ErrorKind::kInvalidInput, kWhere, path, ": is a folder, expected a file's name");
  if (target_.kind == OutputTarget::kFile && existing == Existing::kKeep)
    fail(ErrorKind::kInvalidInput, kWhere, path, ": exists, expected a new name");
  if (is_stream())
    open_stream(stop);
  else
    open_beside();
}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  try {
    flush();
  } catch (const Error&) {
    // commit() is where a caller learns of it
  }
  ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void OutputFile::open_stream(const std::function<bool()>& stop) {
  if (target_.descriptor >= 0) {
    fd_ = ::fcntl(target_.descriptor, F_DUPFD_CLOEXEC, 3);
  } else {
    // Without a reader a FIFO that is opened in this way is an ENXIO.
    constexpr int kWaitMicroseconds = 20000;
    const int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY;
    struct stat info {};
    const bool fifo = ::stat(target_.path.c_str(), &info) == 0 && S_ISFIFO(info.st_mode);
    while ((fd_ = ::open(target_.path.c_str(), fifo ? flags | O_NONBLOCK : flags)) < 0 && fifo &&
           errno == ENXIO && !(stop && stop()))
      ::usleep(kWaitMicroseconds);
    if (fifo && fd_ >= 0) ::fcntl(fd_, F_SETFL, O_WRONLY);
  }
  if (fd_ < 0) fail(ErrorKind::kInvalidInput, kWhere, path_, ": cannot write here: ", reason());
}

void OutputFile::open_beside() {
  lock_.emplace(target_.path);
  const std::string folder = split(target_.path).first;
  fd_ = ::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
  // commit() names such a file through /proc.
  if (fd_ >= 0 && ::access(str("/proc/self/fd/", fd_).c_str(), F_OK) != 0) {
    ::close(fd_);
    fd_ = -1;
  }
  while (fd_ < 0) {
    temporary_ = temporary_name(target_.path);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno != EEXIST)
      fail(ErrorKind::kInvalidInput, kWhere, path_, ": cannot write here: ", reason());
  }
  keep_mode();
}

// Gives the file that is written the mode of the one that it replaces, and its owner where allowed.
void OutputFile::keep_mode() const {
  struct stat old {};
  if (::stat(target_.path.c_str(), &old) != 0) return;
  if (::fchown(fd_, old.st_uid, old.st_gid) != 0) errno = 0;  // only root gives files away
  ::fchmod(fd_, old.st_mode & 0777);
}

void OutputFile::write(std::string_view bytes) {
  if (buffer_.size() + bytes.size() < kBufferBytes) {
    buffer_.append(bytes);
    return;
  }
  put(buffer_);
  buffer_.clear();
  put(bytes);
}

void OutputFile::put(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n >= 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {  // a stream that another process made so
      pollfd ready{fd_, POLLOUT, 0};
      ::poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      const std::string why = reason();
      buffer_.clear();
      fail(ErrorKind::kExhausted, kWhere, path_ == "-" ? "stdout" : path_, ": cannot write: ", why);
    }
  }
}

void OutputFile::flush() {
  if (!is_stream()) return;
  put(buffer_);
  buffer_.clear();
}

void OutputFile::commit() {
  if (is_stream()) return flush();
  put(buffer_);
  buffer_.clear();
  if (::fsync(fd_) != 0) fail(ErrorKind::kExhausted, kWhere, path_, ": ", reason());
  if (!give_name()) {
    const std::string why = errno == EEXIST ? "exists since this was begun" : reason();
    fail(ErrorKind::kInvalidInput, kWhere, path_, ": cannot get this name: ", why);
  }
  temporary_.clear();
  ::close(fd_);
  fd_ = -1;
  lock_.reset();
  sync_folder(split(target_.path).first);
}

// False, with errno, when it cannot; `temporary_` is then removed by the destructor.
bool OutputFile::give_name() {
  const std::string nameless = str("/proc/self/fd/", fd_);
  const auto link_as = [&](const std::string& name) {
    return ::linkat(AT_FDCWD, nameless.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
  };
  if (existing_ == Existing::kKeep) {
    if (temporary_.empty()) return link_as(target_.path);
    if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.path.c_str(),
                    RENAME_NOREPLACE) == 0)
      return true;
    // Some network file systems have no such call.
    if (errno != EINVAL && errno != ENOSYS) return false;
    errno = EEXIST;
    struct stat info {};
    return ::lstat(target_.path.c_str(), &info) != 0 &&
           ::rename(temporary_.c_str(), target_.path.c_str()) == 0;
  }
  if (temporary_.empty()) {
    if (link_as(target_.path)) return true;
    while (errno == EEXIST) {
      const std::string name = temporary_name(target_.path);
      if (!link_as(name)) continue;
      temporary_ = name;
      break;
    }
    if (temporary_.empty()) return false;
  }
  keep_mode();
  return ::rename(temporary_.c_str(), target_.path.c_str()) == 0;
}

void write_file_atomic(const std::string& path, std::string_view bytes) {
  OutputFile file(path);
  file.write(bytes);
  file.commit();
}

void remove_files_of(const std::string& folder, std::span<const char* const> names) {
  std::error_code none;
  if (fs::symlink_status(folder, none).type() != fs::file_type::directory) return;
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(folder, none))
    if (entry.symlink_status(none).type() == fs::file_type::regular)
      entries.push_back(entry.path());
  for (const std::string name : names)
    for (const auto& path : entries) {
      const std::string found = path.filename();
      if (found == name || found.starts_with(temporary_prefix(name))) fs::remove(path, none);
    }
  fs::remove(folder, none);  // an empty folder alone
}

}  // namespace erank::base
