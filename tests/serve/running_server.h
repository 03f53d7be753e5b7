// A server on a free port with a handler of the test's own.
#pragma once

#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "erank/serve/server.h"

namespace erank::serve {

class RunningServer {
 public:
  explicit RunningServer(Handler handler, ServerOptions options = {}) {
    options.allowed_hosts.push_back("h");  // that of get() and post()
    options.on_request = [this](const AccessRecord& record) {
      const std::lock_guard lock(mutex_);
      records_.push_back(record);
    };
    server_.emplace(std::move(options), std::move(handler));
    thread_ = std::thread([this] {
      server_->run();
      const std::lock_guard lock(mutex_);
      ended_ = true;
    });
  }
  ~RunningServer() {
    server_->stop(std::chrono::milliseconds(0));
    join();
  }

  int port() const { return server_->port(); }
  Server& server() { return *server_; }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  bool ended() const {
    const std::lock_guard lock(mutex_);
    return ended_;
  }
  // Waits until so many requests are complete.
  std::vector<AccessRecord> records(size_t count) const {
    for (int i = 0; i < 1000; ++i) {
      {
        const std::lock_guard lock(mutex_);
        if (records_.size() >= count) return records_;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return {};
  }

 private:
  std::optional<Server> server_;
  std::thread thread_;
  mutable std::mutex mutex_;
  std::vector<AccessRecord> records_;
  bool ended_ = false;
};

}  // namespace erank::serve
