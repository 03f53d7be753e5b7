// tests/synth/chat_server.py, running.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "erank/base/files.h"
#include "erank/base/json.h"
#include "tests/test_folder.h"

namespace erank::synth {

class ChatServer {
 public:
  explicit ChatServer(const std::string& redirect_to = "") {
    ::setenv("no_proxy", "127.0.0.1", 1);
    int in[2], out[2];
    if (::pipe(in) != 0 || ::pipe(out) != 0) return;
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(in[0], 0), ::dup2(out[1], 1);
      for (const int fd : {in[0], in[1], out[0], out[1]}) ::close(fd);
      const std::string log = this->log();
      ::execlp("python3", "python3", ERANK_SOURCE_DIR "/tests/synth/chat_server.py", log.c_str(),
               redirect_to.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(in[0]), ::close(out[1]);
    stdin_ = in[1];
    std::string line;
    for (char c; ::read(out[0], &c, 1) == 1 && c != '\n';) line += c;
    ::close(out[0]);
    EXPECT_FALSE(line.empty()) << "python3 does not start the server";
    url_ = "http://127.0.0.1:" + line;
  }
  ~ChatServer() {
    ::close(stdin_);
    ::waitpid(pid_, nullptr, 0);
  }
  ChatServer(const ChatServer&) = delete;
  ChatServer& operator=(const ChatServer&) = delete;

  const std::string& url() const { return url_; }
  // What [hold] and [away] wait for.
  void release() { base::write_file_atomic(log() + ".release", ""); }
  // Releases, and waits until what [away] took away listens again.
  void come_back() {
    release();
    for (int i = 0; i < 1000 && lines_with("back").empty(); ++i) ::usleep(10000);
    EXPECT_FALSE(lines_with("back").empty());
  }

  // Of each request as it came: {request, mark, time, authorized, path, body}.
  std::vector<base::Json> requests() const { return lines_with("request"); }
  std::vector<base::Json> answered() const { return lines_with("done"); }
  // How often requests with this body came, by the marks in their text.
  std::map<std::string, int> counts() const {
    std::map<std::string, int> counts;
    for (const auto& line : requests()) ++counts[line["mark"]];
    return counts;
  }
  std::string log() const { return folder_.path("log"); }

 private:
  std::vector<base::Json> lines_with(const char* key) const {
    std::vector<base::Json> found;
    std::ifstream in(log());
    for (std::string line; std::getline(in, line) && !in.eof();) {
      base::Json json = base::parse_json(line, "log");
      if (json.contains(key)) found.push_back(std::move(json));
    }
    return found;
  }
  TestFolder folder_;
  std::string url_;
  pid_t pid_ = -1;
  int stdin_ = -1;
};

}  // namespace erank::synth
