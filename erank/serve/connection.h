// The inside of serve/server.h: what a server and its connections share. Included by those two
// sources alone.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "erank/serve/server.h"

namespace erank::serve {

// One client's connection, on the server's thread.
class Connection {
 public:
  virtual ~Connection() = default;
  // Its whole life: requests and replies until one side ends it.
  virtual boost::asio::awaitable<void> run() = 0;
  // Has it look at what is new of the server or of its request's answer.
  virtual void wake() = 0;
  // Ends it now, in the middle of what it does.
  virtual void cut() = 0;
};

struct ServerCore {
  ServerCore(ServerOptions o, Handler h)
      : options(std::move(o)),
        handler(std::move(h)),
        keys(options.api_keys, options.open_paths),
        origins(options.cors_origins),
        random(std::random_device{}()) {}

  boost::asio::awaitable<void> accept(boost::asio::ip::tcp::acceptor& acceptor);
  void listen();
  void load_tls();
  void begin_stop(std::chrono::milliseconds drain);

  const ServerOptions options;
  const Handler handler;
  const Keys keys;
  const Origins origins;
  Hosts hosts;  // once it listens
  std::mt19937_64 random;
  std::set<Connection*> connections;  // alive
  int num_refused = 0;                // of them
  int64_t reading_bytes = 0;          // of bodies that no handler has yet
  boost::asio::io_context io{1};
  std::vector<boost::asio::ip::tcp::acceptor> acceptors;  // fixed once it listens
  boost::asio::steady_timer drain_timer{io};
  std::optional<boost::asio::ssl::context> tls;
  int port = 0;
  bool stopping = false;  // no new connections and requests
  bool over = false;      // the drain's time
};

// `refused`: it is told 503 and ended, since there are too many.
std::shared_ptr<Connection> make_connection(ServerCore& core, boost::asio::ip::tcp::socket socket,
                                            bool refused);

}  // namespace erank::serve
