// The server with a certificate that the test makes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <cstdio>

#include "erank/base/error.h"
#include "tests/serve/raw_client.h"
#include "tests/serve/running_server.h"
#include "tests/test_folder.h"

namespace erank::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Certificate {
  std::string file, key;
};

// Self-signed, for localhost, good for an hour.
Certificate make_certificate(const TestFolder& folder, const std::string& name) {
  Certificate made{folder.path(name + ".crt"), folder.path(name + ".key")};
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME* subject = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
  X509_set_issuer_name(certificate, subject);
  EXPECT_GT(X509_sign(certificate, key, EVP_sha256()), 0);
  FILE* file = std::fopen(made.file.c_str(), "w");
  PEM_write_X509(file, certificate);
  std::fclose(file);
  file = std::fopen(made.key.c_str(), "w");
  PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
  X509_free(certificate);
  EVP_PKEY_free(key);
  return made;
}

void greet(HttpRequest request, std::shared_ptr<Responder> responder) {
  responder->send({200, "hello " + request.body});
}

TEST(ServerTls, ServesOverTls) {
  const TestFolder folder;
  const Certificate made = make_certificate(folder, "a");
  RunningServer server(greet, {.tls_certificate = made.file, .tls_key = made.key});
  EXPECT_THAT(server.server().url(), StartsWith("https://127.0.0.1:"));

  RawClient wire(server.port());
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* tls = SSL_new(context);
  SSL_set_fd(tls, wire.socket());
  ASSERT_EQ(SSL_connect(tls), 1);
  for (int i = 0; i < 2; ++i) {  // the connection is kept
    const std::string body(50000, 'x'), request = post("/", body);
    size_t written = 0;
    ASSERT_EQ(SSL_write_ex(tls, request.data(), request.size(), &written), 1);
    EXPECT_EQ(written, request.size());
    std::string reply;
    while (reply.find("hello " + body) == reply.npos) {
      char piece[4096];
      const int n = SSL_read(tls, piece, sizeof piece);
      ASSERT_GT(n, 0) << reply;
      reply.append(piece, static_cast<size_t>(n));
    }
    EXPECT_THAT(reply, StartsWith("HTTP/1.1 200 OK\r\n"));
  }
  SSL_shutdown(tls);
  SSL_free(tls);
  SSL_CTX_free(context);
}

TEST(ServerTls, EndsConnectionsThatSpeakNoTls) {
  const TestFolder folder;
  const Certificate made = make_certificate(folder, "a");
  RunningServer server(greet, {.client_timeout = std::chrono::milliseconds(200),
                               .tls_certificate = made.file,
                               .tls_key = made.key});
  RawClient plain(server.port()), silent(server.port());
  plain.send(get("/"));
  EXPECT_TRUE(plain.ended());
  EXPECT_TRUE(silent.ended());
}

TEST(ServerTls, RefusesAKeyOfAnotherCertificate) {
  const TestFolder folder;
  const Certificate a = make_certificate(folder, "a"), b = make_certificate(folder, "b");
  try {
    Server server({.tls_certificate = a.file, .tls_key = b.key}, greet);
    ADD_FAILURE() << "it took the key";
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("b.key: not the certificate's private key in PEM form"));
  }
}

}  // namespace
}  // namespace erank::serve
