// The command line: the flags of both of the zoo's runners and what they lacked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

struct Args {
  std::filesystem::path model_path;                     // MINDIR file
  std::filesystem::path input_dir;                      // folder of .bin files, each one preprocessed image
  std::string dataset_name = "imagenet2012";            // accepted for the zoo's scripts; changes nothing
  std::string device_target = "Ascend";                 // Ascend, Ascend310, CPU or GPU
  uint32_t device_id = 0;                               // which Ascend or GPU
  std::string precision;                                // empty: MindSpore Lite's default for the device
  uint32_t batch = 0;                                   // rows per Predict call of a dynamic-batch model; 0: not given
  uint32_t threads = 2;                                 // CPU threads of one Predict call
  std::filesystem::path config;                         // MindSpore Lite configuration file; empty: none
  std::filesystem::path result_dir = "./result_Files";  // one file per image and output
  std::filesystem::path time_dir = "./time_Result";     // test_perform_static.txt
  bool help = false;
};

// Throws Failure(kUsage) naming the flag. Nothing but the flags is looked at: no file has to exist.
Args ParseArgs(int argc, const char *const *argv);

std::string Usage();
