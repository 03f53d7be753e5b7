// A client that sends just the bytes it is given, and reads what comes back.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace erank::serve {

struct RawReply {
  int status = 0;                              // 0: none came
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
  bool complete = false;                       // as its length or its last chunk says
};

// A TCP connection to 127.0.0.1. Reads wait at most ten seconds.
class RawClient {
 public:
  // `receive_buffer`: of the socket, in bytes; 0 is the system's.
  explicit RawClient(int port, int receive_buffer = 0);
  ~RawClient();
  RawClient(const RawClient&) = delete;

  bool connected() const { return socket_ >= 0; }
  // False when the server does not take all of it.
  bool send(std::string_view bytes);
  void end_sending();  // half a close
  void close();
  int socket() const { return socket_; }

  // The next reply; `head`: it answers HEAD. Informational ones (100) are replies too.
  RawReply reply(bool head = false);
  // send() and reply().
  RawReply ask(std::string_view bytes);
  // Up to the end of the connection.
  std::string rest();
  // Until `text` has come; false when it does not.
  bool wait_for(std::string_view text);
  // Whether the server has ended the connection, within `ms`.
  bool ended(int ms = 10000);

 private:
  bool more(int ms = 10000);  // of what is sent, into read_
  int socket_ = -1;
  std::string read_;
};

// "GET PATH HTTP/1.1", Host, `headers` (each with \r\n), an empty line.
std::string get(const std::string& path, const std::string& headers = "");
std::string post(const std::string& path, const std::string& body, const std::string& headers = "");

}  // namespace erank::serve
