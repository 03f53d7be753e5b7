#include "tests/serve/raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace erank::serve {

RawClient::RawClient(int port, int receive_buffer) {
  socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_buffer > 0)
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) close();
}

RawClient::~RawClient() { close(); }

void RawClient::close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

bool RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

void RawClient::end_sending() { ::shutdown(socket_, SHUT_WR); }

bool RawClient::more(int ms) {
  pollfd ready{socket_, POLLIN, 0};
  if (::poll(&ready, 1, ms) != 1) return false;
  char piece[65536];
  const ssize_t n = ::recv(socket_, piece, sizeof piece, 0);
  if (n <= 0) return false;
  read_.append(piece, static_cast<size_t>(n));
  return true;
}

RawReply RawClient::reply(bool head) {
  RawReply reply;
  size_t end;
  while ((end = read_.find("\r\n\r\n")) == read_.npos)
    if (!more()) return reply;
  const std::string text = read_.substr(0, end + 2);
  read_.erase(0, end + 4);
  reply.status = text.starts_with("HTTP/1.") ? std::atoi(text.c_str() + 9) : -1;
  for (size_t at = text.find("\r\n") + 2; at < text.size();) {
    const size_t line_end = text.find("\r\n", at), colon = text.find(": ", at);
    std::string name = text.substr(at, colon - at);
    std::transform(name.begin(), name.end(), name.begin(), ::tolower);
    EXPECT_TRUE(reply.headers.emplace(name, text.substr(colon + 2, line_end - colon - 2)).second)
        << name << " twice";
    at = line_end + 2;
  }
  if (head || reply.status == 204 || reply.status == 304 || reply.status < 200) {
    reply.complete = true;
  } else if (reply.headers.contains("transfer-encoding")) {
    for (;;) {
      size_t line;
      while ((line = read_.find("\r\n")) == read_.npos)
        if (!more()) return reply;
      const size_t size = std::strtoul(read_.c_str(), nullptr, 16);
      while (read_.size() < line + 2 + size + 2)
        if (!more()) return reply;
      reply.body += read_.substr(line + 2, size);
      read_.erase(0, line + 2 + size + 2);
      if (size == 0) break;
    }
    reply.complete = true;
  } else if (reply.headers.contains("content-length")) {
    const size_t size = std::strtoul(reply.headers["content-length"].c_str(), nullptr, 10);
    while (read_.size() < size)
      if (!more()) return reply;
    reply.body = read_.substr(0, size);
    read_.erase(0, size);
    reply.complete = true;
  } else {
    reply.body = rest();
  }
  return reply;
}

RawReply RawClient::ask(std::string_view bytes) {
  send(bytes);
  return reply();
}

std::string RawClient::rest() {
  while (more()) {
  }
  return std::exchange(read_, {});
}

bool RawClient::wait_for(std::string_view text) {
  while (read_.find(text) == read_.npos)
    if (!more()) return false;
  return true;
}

bool RawClient::ended(int ms) {
  for (;;) {
    pollfd ready{socket_, POLLIN, 0};
    if (::poll(&ready, 1, ms) != 1) return false;
    char piece[65536];
    if (::recv(socket_, piece, sizeof piece, 0) <= 0) return true;
  }
}

std::string get(const std::string& path, const std::string& headers) {
  return "GET " + path + " HTTP/1.1\r\nHost: h\r\n" + headers + "\r\n";
}

std::string post(const std::string& path, const std::string& body, const std::string& headers) {
  return "POST " + path + " HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n" + headers + "\r\n" + body;
}

}  // namespace erank::serve
