#include "erank/serve/server.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/serve/connection.h"

namespace erank::serve {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kMaxRefused = 64;  // connections over the limit that are told so

// Of an address that this machine does not have, or no address of its family.
bool is_absent(error_code ec) {
  return ec == asio::error::address_family_not_supported ||
         ec == boost::system::errc::address_not_available;
}

}  // namespace

// At every address of the host: of port 0 at the one that is free at the first. An address of a
// family that this machine does not have is passed over where there is another one.
void ServerCore::listen() {
  for (const std::string& name : options.allowed_hosts)
    if (name.empty() || name.find('/') != name.npos ||
        (name.front() != '[' && name.find(':') != name.npos))
      base::fail(base::ErrorKind::kInvalidInput, "--allowed-host", base::in_quotes(name),
                 " is no name as browsers send it, expected e.g. rerank.example or [::1], without "
                 "scheme and port");
  error_code ec;
  tcp::resolver resolver(io);
  const auto found =
      resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, ec);
  if (ec || found.empty())
    base::fail(base::ErrorKind::kInvalidInput, "serve", "--host ", base::in_quotes(options.host),
               " is no address of this machine: ", ec.message());
  bool loopback = true;
  error_code fault;
  port = options.port;
  for (const auto& entry : found) {
    const tcp::endpoint endpoint(entry.endpoint().address(), static_cast<uint16_t>(port));
    const bool again = std::any_of(acceptors.begin(), acceptors.end(), [&](const auto& other) {
      return other.local_endpoint().address() == endpoint.address();
    });
    if (again) continue;  // a resolver may name one twice
    tcp::acceptor acceptor(io);
    acceptor.open(endpoint.protocol(), ec);
    // Beside an IPv4 address "::" is not to take that one's connections too.
    if (!ec && found.size() > 1 && endpoint.address().is_v6())
      acceptor.set_option(asio::ip::v6_only(true), ec);
    if (!ec) acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
    if (!ec) acceptor.bind(endpoint, ec);
    if (!ec) acceptor.listen(asio::socket_base::max_listen_connections, ec);
    if (!ec) {
      port = acceptor.local_endpoint().port();
      loopback = loopback && endpoint.address().is_loopback();
      acceptors.push_back(std::move(acceptor));
      continue;
    }
    fault = ec;
    if (!is_absent(ec)) break;
  }
  if (acceptors.empty() || (fault && !is_absent(fault)))
    base::fail(base::ErrorKind::kExhausted, "serve", "cannot listen on ",
               base::str(options.host, ":", port), ": ", fault.message(),
               "; choose another --port or --host");
  if (options.allowed_hosts.empty() && !(loopback && options.api_keys.empty())) return;
  std::vector<std::string> names = options.allowed_hosts;
  const std::string own =
      options.host.find(':') == options.host.npos ? options.host : "[" + options.host + "]";
  names.insert(names.end(), {"localhost", "127.0.0.1", "[::1]", own});
  hosts = Hosts(std::move(names));
}

void ServerCore::load_tls() {
  if (options.tls_certificate.empty() && options.tls_key.empty()) return;
  if (options.tls_certificate.empty() || options.tls_key.empty())
    base::fail(base::ErrorKind::kInvalidInput, "serve",
               "TLS needs a certificate and its key, both as PEM files");
  tls.emplace(asio::ssl::context::tls_server);
  error_code ec;
  tls->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                       asio::ssl::context::no_tlsv1_1 | asio::ssl::context::no_compression,
                   ec);
  if (!ec) tls->use_certificate_chain_file(options.tls_certificate, ec);
  if (ec)
    base::fail(base::ErrorKind::kInvalidInput, "serve", options.tls_certificate,
               ": no certificate in PEM form: ", ec.message());
  tls->use_private_key_file(options.tls_key, asio::ssl::context::pem, ec);
  if (ec)
    base::fail(base::ErrorKind::kInvalidInput, "serve", options.tls_key,
               ": not the certificate's private key in PEM form: ", ec.message());
}

asio::awaitable<void> ServerCore::accept(tcp::acceptor& acceptor) {
  while (!stopping) {
    error_code ec;
    tcp::socket socket(io);
    co_await acceptor.async_accept(socket, asio::redirect_error(asio::use_awaitable, ec));
    if (ec == asio::error::operation_aborted || !acceptor.is_open()) co_return;
    if (ec) {  // no descriptor is free, or the client is gone already
      asio::steady_timer pause(io, milliseconds(50));
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, ec));
      continue;
    }
    const int num_served = static_cast<int>(connections.size()) - num_refused;
    const bool refused = num_served >= options.max_connections;
    if (refused && num_refused >= kMaxRefused) continue;  // and closed
    const auto connection = make_connection(*this, std::move(socket), refused);
    asio::co_spawn(
        io, [connection] { return connection->run(); }, asio::detached);
  }
}

void ServerCore::begin_stop(milliseconds drain) {
  stopping = true;
  error_code ignored;
  for (tcp::acceptor& acceptor : acceptors) acceptor.close(ignored);
  for (Connection* connection : connections) connection->wake();
  if (connections.empty()) return;
  drain_timer.expires_after(drain);
  drain_timer.async_wait([this](error_code ec) {
    if (ec || connections.empty()) return;
    over = true;
    for (Connection* connection : connections) connection->wake();
    drain_timer.expires_after(seconds(1));
    drain_timer.async_wait([this](error_code cancelled) {
      if (cancelled) return;
      for (Connection* connection : connections) connection->cut();
    });
  });
}

Server::Server(ServerOptions options, Handler handler)
    : core_(std::make_unique<ServerCore>(std::move(options), std::move(handler))) {
  core_->load_tls();
  core_->listen();
}

Server::~Server() = default;

int Server::port() const { return core_->port; }

std::string Server::url() const {
  const std::string& host = core_->options.host;
  const bool six = host.find(':') != host.npos;
  return base::str(core_->tls ? "https://" : "http://", six ? "[" : "", host, six ? "]" : "", ":",
                   core_->port);
}

void Server::run() {
  for (tcp::acceptor& acceptor : core_->acceptors)
    asio::co_spawn(core_->io, core_->accept(acceptor), asio::detached);
  core_->io.run();
}

void Server::stop(milliseconds drain) {
  asio::post(core_->io, [core = core_.get(), drain] { core->begin_stop(drain); });
}

}  // namespace erank::serve
