#include "files.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <system_error>

namespace fs = std::filesystem;

namespace {
// A path may hold line breaks; the message must stay one line.
std::string OneLine(std::string text) {
  std::replace_if(text.begin(), text.end(), [](unsigned char letter) { return letter < 0x20 || letter == 0x7f; }, ' ');
  return text;
}

std::string Message(const std::string &subject, const std::string &rule, const std::string &received,
                    const std::string &known) {
  std::string text = subject + ": " + rule;
  if (!received.empty()) text += ". Received: " + received;
  if (!known.empty()) text += ". Known: " + known;
  return OneLine(text);
}

std::string Reason(int error_number) {
  return error_number == 0 ? "unknown reason" : std::generic_category().message(error_number);
}
}  // namespace

Failure::Failure(ExitCode exit_code, const std::string &subject, const std::string &rule, const std::string &received,
                 const std::string &known)
    : std::runtime_error(Message(subject, rule, received, known)), exit_code_(exit_code) {}

std::vector<fs::path> FindInputs(const fs::path &dir) {
  std::error_code error;
  if (!fs::is_directory(dir, error)) {
    throw Failure(kData, dir.string(), "has to be a folder of .bin files",
                  fs::exists(dir, error) ? "a file" : "nothing");
  }
  std::vector<fs::path> inputs;
  try {
    for (const auto &entry : fs::recursive_directory_iterator(dir, fs::directory_options::follow_directory_symlink)) {
      // A dangling link is kept, so that it is reported instead of left out.
      if (entry.path().extension() == ".bin" && !entry.is_directory(error)) {
        inputs.push_back(entry.path().lexically_relative(dir));
      }
    }
  } catch (const fs::filesystem_error &failure) {
    throw Failure(kData, failure.path1().string(), "cannot be listed: " + failure.code().message());
  }
  if (inputs.empty()) throw Failure(kData, dir.string(), "has no .bin file in it or in its folders");
  std::sort(inputs.begin(), inputs.end());
  return inputs;
}

void CheckSize(const fs::path &path, size_t bytes, const std::string &what) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) throw Failure(kData, path.string(), "cannot be read: " + error.message());
  if (size != bytes) {
    throw Failure(kData, path.string(), "has to hold " + what + ", " + std::to_string(bytes) + " bytes",
                  std::to_string(size) + " bytes");
  }
}

void ReadFloats(const fs::path &path, float *destination, size_t count) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file.read(reinterpret_cast<char *>(destination), static_cast<std::streamsize>(count * sizeof(float)))) {
    throw Failure(kData, path.string(), "cannot be read: " + Reason(errno));
  }
  if (!AllFinite(destination, count)) throw Failure(kData, path.string(), "holds numbers that are not finite");
}

bool AllFinite(const float *numbers, size_t count) {
  return std::all_of(numbers, numbers + count, [](float number) { return std::isfinite(number); });
}

void CreateFolder(const fs::path &dir) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (!fs::is_directory(dir)) {
    throw Failure(kOther, dir.string(), "cannot be created as a folder" + (error ? ": " + error.message() : ""));
  }
}

void WriteFile(const fs::path &path, const void *data, size_t bytes) {
  const fs::path partial = path.string() + ".partial" + std::to_string(getpid());
  errno = 0;
  std::ofstream file(partial, std::ios::binary | std::ios::trunc);
  file.write(static_cast<const char *>(data), static_cast<std::streamsize>(bytes));
  file.close();
  std::error_code error(file ? 0 : errno, std::generic_category());
  if (file) fs::rename(partial, path, error);
  if (!file || error) {
    std::error_code ignored;
    fs::remove(partial, ignored);
    throw Failure(kOther, path.string(), "cannot be written: " + Reason(error.value()));
  }
}
