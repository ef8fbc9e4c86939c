#include "checksum.h"

#include <array>
#include <cstdint>
#include <fstream>
#include <iterator>

#include "files.h"

namespace fs = std::filesystem;

namespace {
using State = std::array<uint32_t, 8>;
constexpr size_t kBlock = 64;

// The fractions of the cube roots of the first 64 primes.
constexpr std::array<uint32_t, 64> kRounds = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t RotateRight(uint32_t word, int bits) { return (word >> bits) | (word << (32 - bits)); }

void AddBlock(const unsigned char *block, State *state) {
  std::array<uint32_t, 64> w;
  for (size_t i = 0; i < 16; ++i) {
    const unsigned char *byte = block + 4 * i;
    w[i] = uint32_t{byte[0]} << 24 | uint32_t{byte[1]} << 16 | uint32_t{byte[2]} << 8 | uint32_t{byte[3]};
  }
  for (size_t i = 16; i < w.size(); ++i) {
    const uint32_t small0 = RotateRight(w[i - 15], 7) ^ RotateRight(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const uint32_t small1 = RotateRight(w[i - 2], 17) ^ RotateRight(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + small0 + w[i - 7] + small1;
  }
  auto [a, b, c, d, e, f, g, h] = *state;
  for (size_t i = 0; i < w.size(); ++i) {
    const uint32_t large1 = RotateRight(e, 6) ^ RotateRight(e, 11) ^ RotateRight(e, 25);
    const uint32_t large0 = RotateRight(a, 2) ^ RotateRight(a, 13) ^ RotateRight(a, 22);
    const uint32_t first = h + large1 + ((e & f) ^ (~e & g)) + kRounds[i] + w[i];
    const uint32_t second = large0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + first;
    d = c;
    c = b;
    b = a;
    a = first + second;
  }
  const State sum = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < sum.size(); ++i) (*state)[i] += sum[i];
}

std::string ReadText(const fs::path &path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file) throw Failure(kModelFile, path.string(), "cannot be read");
  return text;
}

// The text between the quotes behind `"sha256":`, which export.py writes before any other entry of that name; empty
// without one.
std::string DescribedSum(const std::string &json) {
  const std::string key = "\"sha256\"";
  const size_t at = json.find(key);
  if (at == std::string::npos) return "";
  const size_t start = json.find('"', at + key.size());
  return start == std::string::npos ? "" : json.substr(start + 1, json.find('"', start + 1) - start - 1);
}
}  // namespace

std::string Sha256(const std::string &content) {
  State state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  const auto *bytes = reinterpret_cast<const unsigned char *>(content.data());
  const size_t whole = content.size() / kBlock * kBlock;
  for (size_t start = 0; start < whole; start += kBlock) AddBlock(bytes + start, &state);

  // A one bit, zeros up to the end of a block, and there the number of bits.
  std::string rest = content.substr(whole) + '\x80';
  while (rest.size() % kBlock != kBlock - 8) rest += '\0';
  for (int shift = 56; shift >= 0; shift -= 8) rest += static_cast<char>(uint64_t{content.size()} * 8 >> shift);
  for (size_t start = 0; start < rest.size(); start += kBlock) {
    AddBlock(reinterpret_cast<const unsigned char *>(rest.data()) + start, &state);
  }

  std::string digits;
  for (const uint32_t word : state) {
    for (int shift = 28; shift >= 0; shift -= 4) digits += "0123456789abcdef"[word >> shift & 15];
  }
  return digits;
}

void CheckModelFile(const fs::path &model) {
  if (!fs::is_regular_file(model)) throw Failure(kModelFile, model.string(), "is not a file");
  fs::path description = model;
  description.replace_extension(".json");
  if (!fs::is_regular_file(description)) return;
  const std::string described = DescribedSum(ReadText(description));
  if (!described.empty() && Sha256(ReadText(model)) != described) {
    throw Failure(kModelFile, model.string(), "is damaged: its content is not what " + description.string() + " says");
  }
}
