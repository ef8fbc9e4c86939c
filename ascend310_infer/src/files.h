// Finding inputs, writing results, and the one error type that every part of the runner throws.
#pragma once

#include <cstddef>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

enum ExitCode { kOther = 1, kUsage = 2, kData = 3, kModelFile = 4, kNumbers = 5 };

// One line for the user: "<subject>: <rule>. Received: <received>. Known: <known>", without the parts that are empty.
class Failure : public std::runtime_error {
 public:
  Failure(ExitCode exit_code, const std::string &subject, const std::string &rule, const std::string &received = "",
          const std::string &known = "");
  ExitCode exit_code() const { return exit_code_; }

 private:
  ExitCode exit_code_;
};

// Every .bin file below `dir`, as paths relative to it, in a fixed order. Throws Failure(kData) if there is none.
std::vector<std::filesystem::path> FindInputs(const std::filesystem::path &dir);

// Throws Failure(kData) unless `path` is a file of exactly `bytes` bytes; `what` says what that is.
void CheckSize(const std::filesystem::path &path, size_t bytes, const std::string &what);

// Reads exactly `count` numbers into `destination`. Throws Failure(kData) if they are not there, or not all finite.
void ReadFloats(const std::filesystem::path &path, float *destination, size_t count);

bool AllFinite(const float *numbers, size_t count);

// Creates `dir` and its parents. Throws Failure(kOther).
void CreateFolder(const std::filesystem::path &dir);

// Replaces `path` in one step: a reader sees the whole old file or the whole new one. Throws Failure(kOther).
void WriteFile(const std::filesystem::path &path, const void *data, size_t bytes);
