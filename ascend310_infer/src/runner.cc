#include "runner.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <iostream>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#if __has_include("include/cxx_api/model.h")
#include "include/cxx_api/context.h"
#include "include/cxx_api/model.h"
#else
#include "include/api/context.h"
#include "include/api/model.h"
#endif
#include "checksum.h"
#include "files.h"

namespace fs = std::filesystem;

namespace {
// Where the crash handler writes what; it may call nothing but write and _exit.
char crash_line[1024];
int crash_fd = STDERR_FILENO;

void ReportCrash(int) {
  const ssize_t ignored = write(crash_fd, crash_line, std::strlen(crash_line));
  _exit(ignored < 0 ? kOther : kModelFile);
}

// Calls MindSpore Lite so that the caller of this program sees one line and an exit code, whatever happens:
// Lite explains itself in dozens of lines on stderr, throws, and its converter dies of SIGSEGV on some graphs.
class LiteGuard {
 public:
  explicit LiteGuard(const std::string &model_name) : shows_log_(LogIsWanted()), log_(std::tmpfile()) {
    const std::string line = std::string("error: ") + Failure(kModelFile, model_name, "crashes MindSpore Lite").what();
    std::snprintf(crash_line, sizeof(crash_line), "%s\n", line.c_str());
  }
  ~LiteGuard() {
    if (log_ != nullptr) std::fclose(log_);
  }
  LiteGuard(const LiteGuard &) = delete;
  LiteGuard &operator=(const LiteGuard &) = delete;

  template <typename Function>
  mindspore::Status Call(const Function &function) {
    Begin();
    mindspore::Status status;
    try {
      status = function();
    } catch (...) {
      status = mindspore::kLiteError;
    }
    End();
    return status;
  }

  // True if Lite wrote `words` during the last call; never when the user has the log on the terminal.
  bool LogHas(const std::string &words) const {
    if (log_ == nullptr) return false;
    std::string text(1 << 16, ' ');
    std::rewind(log_);
    text.resize(std::fread(text.data(), 1, text.size(), log_));
    return text.find(words) != std::string::npos;
  }

  std::string Hint() const { return shows_log_ ? "" : " (GLOG_v=2 shows what MindSpore Lite says)"; }

 private:
  static constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

  // GLOG_v up to 2 asks for more than the errors, which are what this program puts into words itself.
  static bool LogIsWanted() {
    const char *level = std::getenv("GLOG_v");
    return level != nullptr && *level >= '0' && *level <= '2';
  }

  void Begin() {
    for (size_t i = 0; i < std::size(kSignals); ++i) handlers_[i] = std::signal(kSignals[i], ReportCrash);
    if (shows_log_ || log_ == nullptr) return;
    std::rewind(log_);
    if (ftruncate(fileno(log_), 0) != 0) return;
    stderr_ = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (stderr_ < 0) return;
    crash_fd = stderr_;
    dup2(fileno(log_), STDERR_FILENO);
  }

  void End() {
    if (stderr_ >= 0) {
      dup2(stderr_, STDERR_FILENO);
      close(stderr_);
      stderr_ = -1;
      crash_fd = STDERR_FILENO;
    }
    for (size_t i = 0; i < std::size(kSignals); ++i) std::signal(kSignals[i], handlers_[i]);
  }

  bool shows_log_;
  std::FILE *log_;
  int stderr_ = -1;
  void (*handlers_[std::size(kSignals)])(int) = {};
};

std::string ShapeText(const std::vector<int64_t> &shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : "x") + std::to_string(size);
  return text;
}

std::shared_ptr<mindspore::DeviceInfoContext> MakeDevice(const Args &args) {
  if (args.device_target == "CPU") return std::make_shared<mindspore::CPUDeviceInfo>();
  if (args.device_target == "GPU") {
    auto gpu = std::make_shared<mindspore::GPUDeviceInfo>();
    gpu->SetDeviceID(args.device_id);
    if (!args.precision.empty()) gpu->SetPrecisionMode(args.precision);
    return gpu;
  }
  // One class serves 310, 310P and 910 since MindSpore Lite 2.0.
  auto ascend = std::make_shared<mindspore::AscendDeviceInfo>();
  ascend->SetDeviceID(args.device_id);
  if (!args.precision.empty()) ascend->SetPrecisionMode(args.precision);
  return ascend;
}

// Lite reports a missing driver like a broken model; the user has to mend another thing.
void CheckAscendRuntime(const Args &args) {
  if (args.device_target.rfind("Ascend", 0) != 0) return;
  void *library = dlopen("libascendcl.so", RTLD_LAZY);
  if (library == nullptr) {
    throw Failure(kOther, "--device_target",
                  "the Ascend runtime (libascendcl.so of CANN, see its set_env.sh) is not found", args.device_target,
                  "CPU");
  }
  dlclose(library);
}

// A built model with one float32 input whose first axis is the batch.
class BuiltModel {
 public:
  explicit BuiltModel(const Args &args) : name_(args.model_path.string()), lite_(name_) {
    Build(args);
    const auto inputs = model_.GetInputs();
    if (inputs.size() != 1) {
      throw Failure(kModelFile, name_, "has to have one input", std::to_string(inputs.size()) + " inputs");
    }
    SetBatch(args);
  }

  size_t batch() const { return batch_; }
  size_t image_floats() const { return image_floats_; }
  std::string image_text() const { return "one float32 image of " + ShapeText(image_shape_); }

  // `images`: batch() * image_floats() numbers. Returns the outputs and stores the milliseconds of the call.
  std::vector<mindspore::MSTensor> Predict(const std::vector<float> &images, double *milliseconds) {
    auto inputs = model_.GetInputs();
    void *destination = inputs[0].MutableData();
    if (destination == nullptr) throw Failure(kOther, name_, "MindSpore Lite gives no input memory");
    std::memcpy(destination, images.data(), images.size() * sizeof(float));
    std::vector<mindspore::MSTensor> outputs;
    const auto status = lite_.Call([&] {
      const auto start = std::chrono::steady_clock::now();
      const auto result = model_.Predict(inputs, &outputs);
      *milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
      return result;
    });
    if (status != mindspore::kSuccess) throw Failure(kModelFile, name_, "MindSpore Lite cannot run it" + lite_.Hint());
    CheckOutputs(outputs);
    return outputs;
  }

 private:
  void Build(const Args &args) {
    auto context = std::make_shared<mindspore::Context>();
    context->SetThreadNum(static_cast<int32_t>(args.threads));
    context->MutableDeviceInfo().push_back(MakeDevice(args));
    if (!args.config.empty()) {
      const auto status = lite_.Call([&] { return model_.LoadConfig(args.config.string()); });
      if (status != mindspore::kSuccess) {
        throw Failure(kUsage, "--config", "is not accepted by MindSpore Lite" + lite_.Hint(), args.config.string());
      }
    }
    const auto status = lite_.Call([&] { return model_.Build(name_, mindspore::kMindIR, context); });
    if (status == mindspore::kSuccess) return;
    if (lite_.LogHas("maximum mind ir version")) {
      throw Failure(kModelFile, name_,
                    "is of a newer IR version than this MindSpore Lite reads; rewrite it as version 1");
    }
    CheckAscendRuntime(args);
    throw Failure(kModelFile, name_, "MindSpore Lite cannot load it for " + args.device_target + lite_.Hint());
  }

  void SetBatch(const Args &args) {
    auto inputs = model_.GetInputs();
    auto shape = inputs[0].Shape();
    const bool is_static = std::all_of(shape.begin(), shape.end(), [](int64_t size) { return size > 0; });
    if (shape.empty() || (!is_static && std::any_of(shape.begin() + 1, shape.end(), [](int64_t n) { return n < 1; }))) {
      throw Failure(kModelFile, name_, "may be dynamic in the batch only", ShapeText(shape));
    }
    if (!is_static) {
      shape[0] = args.batch == 0 ? 1 : args.batch;
      const auto status = lite_.Call([&] { return model_.Resize(inputs, {shape}); });
      if (status != mindspore::kSuccess) {
        throw Failure(kModelFile, name_, "does not take this batch" + lite_.Hint(), std::to_string(shape[0]));
      }
    } else if (args.batch != 0 && args.batch != shape[0]) {
      throw Failure(kUsage, "--batch", "the model was exported with a fixed batch of " + std::to_string(shape[0]),
                    std::to_string(args.batch));
    }
    const auto input = model_.GetInputs().at(0);
    if (input.DataType() != mindspore::DataType::kNumberTypeFloat32) {
      throw Failure(kModelFile, name_, "has to take float32");
    }
    batch_ = static_cast<size_t>(shape[0]);
    image_floats_ = input.DataSize() / batch_ / sizeof(float);
    image_shape_.assign(shape.begin() + 1, shape.end());
  }

  void CheckOutputs(const std::vector<mindspore::MSTensor> &outputs) const {
    for (const auto &output : outputs) {
      const auto &shape = output.Shape();
      if (output.DataType() != mindspore::DataType::kNumberTypeFloat32 || shape.empty() ||
          shape[0] != static_cast<int64_t>(batch_)) {
        throw Failure(kModelFile, name_, "has to give float32 with the batch first", ShapeText(shape));
      }
    }
  }

  std::string name_;
  LiteGuard lite_;
  mindspore::Model model_;
  size_t batch_ = 0;
  size_t image_floats_ = 0;
  std::vector<int64_t> image_shape_;
};

// Reads the images from `first` on into one batch; rows without an image are zero.
std::vector<float> ReadBatch(const fs::path &dir, const std::vector<fs::path> &images, size_t first,
                             const BuiltModel &model) {
  std::vector<float> rows(model.batch() * model.image_floats());
  const size_t last = std::min(first + model.batch(), images.size());
  for (size_t i = first; i < last; ++i) {
    ReadFloats(dir / images[i], rows.data() + (i - first) * model.image_floats(), model.image_floats());
  }
  return rows;
}

// a/b.bin -> result_dir/a/b_0.bin, b_1.bin ...: keyed by the relative path, so equal names in two classes stay apart.
void WriteResults(const fs::path &result_dir, const std::vector<fs::path> &images, size_t first, size_t count,
                  std::vector<mindspore::MSTensor> *outputs, size_t batch) {
  for (size_t k = 0; k < outputs->size(); ++k) {
    const auto host = outputs->at(k).Data();  // copied from the device where needed
    if (host == nullptr) throw Failure(kOther, result_dir.string(), "MindSpore Lite gives no output memory");
    const size_t floats = outputs->at(k).DataSize() / batch / sizeof(float);
    for (size_t i = 0; i < count; ++i) {
      const float *row = static_cast<const float *>(host.get()) + i * floats;
      if (!AllFinite(row, floats)) {
        throw Failure(kNumbers, images[first + i].string(), "the model's result for it is not finite");
      }
      fs::path result = result_dir / images[first + i];
      result.replace_filename(result.stem().string() + "_" + std::to_string(k) + ".bin");
      if (k == 0) CreateFolder(result.parent_path());
      WriteFile(result, row, floats * sizeof(float));
    }
  }
}

// A second run would take the results of the first for images.
void CheckFoldersApart(const Args &args) {
  const fs::path inside = fs::weakly_canonical(args.result_dir).lexically_relative(fs::canonical(args.input_dir));
  if (!inside.empty() && *inside.begin() != "..") {
    throw Failure(kUsage, "--result_dir", "has to lie outside the folder of images", args.result_dir.string());
  }
}
}  // namespace

Timing RunInference(const Args &args) {
  CheckModelFile(args.model_path);
  const auto images = FindInputs(args.input_dir);
  CheckFoldersApart(args);
  CreateFolder(args.result_dir);
  BuiltModel model(args);
  // All of them before the first Predict: an hour of inference must not end at a file that was short from the start.
  for (const auto &image : images) {
    CheckSize(args.input_dir / image, model.image_floats() * sizeof(float), model.image_text());
  }

  Timing timing;
  std::vector<float> rows = ReadBatch(args.input_dir, images, 0, model);
  double milliseconds = 0;
  model.Predict(rows, &milliseconds);  // the first call allocates, so it is not timed
  for (size_t first = 0; first < images.size(); first += model.batch()) {
    // The next batch is read while this one is computed.
    auto next = std::async(std::launch::async, [&, start = first + model.batch()] {
      return start < images.size() ? ReadBatch(args.input_dir, images, start, model) : std::vector<float>();
    });
    const size_t count = std::min(model.batch(), images.size() - first);
    for (size_t i = first; i < first + count; ++i) {
      std::cout << "Start predict input files:" << (args.input_dir / images[i]).string() << '\n';
    }
    auto outputs = model.Predict(rows, &milliseconds);
    timing.Add(milliseconds, model.batch(), count);
    WriteResults(args.result_dir, images, first, count, &outputs, model.batch());
    rows = next.get();
  }
  return timing;
}
