#include "args.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <vector>

#include "files.h"

namespace {
using Values = std::vector<std::string>;

const Values kDatasets = {"imagenet2012", "cifar10", "folder"};
const Values kDevices = {"Ascend", "Ascend310", "CPU", "GPU"};

std::string Join(const Values &values) {
  std::string text;
  for (const auto &value : values) text += (text.empty() ? "" : ", ") + value;
  return text;
}

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char letter) { return std::tolower(letter); });
  return text;
}

// The entry of `known` that equals `value` but for the case of its letters.
std::string Choice(const std::string &flag, const std::string &value, const Values &known) {
  const auto found = std::find_if(known.begin(), known.end(),
                                  [&value](const std::string &choice) { return Lower(choice) == Lower(value); });
  if (found == known.end()) throw Failure(kUsage, flag, "has to be one of the known names", value, Join(known));
  return *found;
}

uint32_t Number(const std::string &flag, const std::string &value, uint32_t smallest, uint32_t largest) {
  uint32_t number = 0;
  const char *end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, number);
  if (error != std::errc() || stop != end || number < smallest || number > largest) {
    throw Failure(kUsage, flag,
                  "has to be a whole number from " + std::to_string(smallest) + " to " + std::to_string(largest),
                  value);
  }
  return number;
}

struct Flag {
  Values names;  // the first is the one that messages use
  const char *help;
  void (*set)(Args *args, const std::string &flag, const std::string &value);
};

using Text = const std::string &;
const std::vector<Flag> kFlags = {
    {{"mindir_path", "model_path"},
     "the exported MINDIR file",
     [](Args *args, Text, Text value) { args->model_path = value; }},
    {{"input0_path", "dataset_path"},
     "folder of preprocessed float32 .bin files, searched with its subfolders; no image is decoded here",
     [](Args *args, Text, Text value) { args->input_dir = value; }},
    {{"dataset_name", "dataset"},
     "imagenet2012 (default), cifar10 or folder; accepted for the zoo's scripts, changes nothing",
     [](Args *args, Text flag, Text value) { args->dataset_name = Choice(flag, value, kDatasets); }},
    {{"device_target"},
     "Ascend (default), Ascend310, CPU or GPU; of these only CPU has ever been run, the others follow the "
     "documentation",
     [](Args *args, Text flag, Text value) { args->device_target = Choice(flag, value, kDevices); }},
    {{"device_id"},
     "which Ascend or GPU (default 0)",
     [](Args *args, Text flag, Text value) { args->device_id = Number(flag, value, 0, 1023); }},
    {{"precision"},
     "Ascend: enforce_fp32, preferred_fp32, enforce_fp16, enforce_origin, preferred_optimal; GPU: enforce_fp32, "
     "preferred_fp16; CPU: enforce_fp32",
     [](Args *args, Text, Text value) { args->precision = value; }},
    {{"batch"},
     "images per call, only for a model with a dynamic batch (default 1)",
     [](Args *args, Text flag, Text value) { args->batch = Number(flag, value, 1, 65536); }},
    {{"threads"},
     "CPU threads of one call (default 2)",
     [](Args *args, Text flag, Text value) { args->threads = Number(flag, value, 1, 1024); }},
    {{"config"}, "MindSpore Lite configuration file", [](Args *args, Text, Text value) { args->config = value; }},
    {{"result_dir"},
     "where a/b.bin becomes a/b_0.bin, one file per output (default ./result_Files)",
     [](Args *args, Text, Text value) { args->result_dir = value; }},
    {{"time_dir"},
     "where test_perform_static.txt is written (default ./time_Result)",
     [](Args *args, Text, Text value) { args->time_dir = value; }},
};

size_t EditDistance(const std::string &left, const std::string &right) {
  std::vector<size_t> row(right.size() + 1);
  for (size_t j = 0; j < row.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= left.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j < row.size(); ++j) {
      const size_t replaced = diagonal + (left[i - 1] == right[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

// The flag name that is a slip of the hand away from `name`, else all of them.
std::string Nearest(const std::string &name) {
  std::string nearest;
  Values all = {"--help"};
  size_t smallest = 4;
  for (const auto &flag : kFlags) {
    for (const auto &known : flag.names) {
      all.push_back("--" + known);
      const size_t distance = EditDistance(name, known);
      if (distance < smallest) {
        smallest = distance;
        nearest = "--" + known;
      }
    }
  }
  return nearest.empty() ? Join(all) : nearest;
}

// The name in `--name` or `-name`, as gflags takes both; empty if `word` is no flag.
std::string FlagName(const std::string &word) {
  const size_t dashes = word.rfind("--", 0) == 0 ? 2 : word.rfind('-', 0) == 0 ? 1 : 0;
  return dashes == 0 ? "" : word.substr(dashes, word.find('=') - dashes);
}

const Flag *FindFlag(const std::string &name) {
  for (const auto &flag : kFlags) {
    if (std::find(flag.names.begin(), flag.names.end(), name) != flag.names.end()) return &flag;
  }
  return nullptr;
}

std::string KnownPrecision(const Args &args) {
  if (args.precision.empty()) return "";
  Values known = {"enforce_fp32", "preferred_fp32", "enforce_fp16", "enforce_origin", "preferred_optimal"};
  if (args.device_target == "GPU") known = {"enforce_fp32", "preferred_fp16"};
  if (args.device_target == "CPU") known = {"enforce_fp32"};
  return Choice("--precision", args.precision, known);
}
}  // namespace

Args ParseArgs(int argc, const char *const *argv) {
  Args args;
  const Values words(argv + 1, argv + argc);
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string name = FlagName(words[i]);
    if (name == "help" || name == "h") {
      args.help = true;
      return args;
    }
    const Flag *flag = FindFlag(name);
    if (flag == nullptr) throw Failure(kUsage, words[i], "is no flag of this program", "", Nearest(name));
    const size_t equals = words[i].find('=');
    const bool next_is_value = i + 1 < words.size() && FindFlag(FlagName(words[i + 1])) == nullptr;
    std::string value;
    if (equals != std::string::npos) {
      value = words[i].substr(equals + 1);
    } else if (next_is_value) {
      value = words[++i];
    }
    if (value.empty()) throw Failure(kUsage, "--" + name, "needs a value");
    flag->set(&args, "--" + name, value);
  }
  if (args.model_path.empty()) throw Failure(kUsage, "--mindir_path", "has to be given, or --model_path");
  if (args.input_dir.empty()) throw Failure(kUsage, "--input0_path", "has to be given, or --dataset_path");
  args.precision = KnownPrecision(args);
  return args;
}

std::string Usage() {
  std::string text =
      "usage: main --mindir_path FILE --input0_path DIR [--flag VALUE | --flag=VALUE]...\n"
      "Runs a MINDIR over preprocessed images with MindSpore Lite and writes the outputs and the time per image.\n\n";
  for (const auto &flag : kFlags) {
    Values names;
    for (const auto &name : flag.names) names.push_back("--" + name);
    text += "  " + Join(names) + "\n      " + flag.help + "\n";
  }
  return text +
         "  --help\n      this text\n\nexit codes: 0 done, 1 other, 2 usage, 3 data, 4 model file, 5 results that are "
         "not finite\n";
}
