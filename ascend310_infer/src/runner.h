// Runs an exported model over a folder of preprocessed images.
#pragma once

#include "args.h"
#include "timing.h"

// Writes one result file per image and output below args.result_dir; returns what the Predict calls took.
// Throws Failure for everything that the user can mend.
Timing RunInference(const Args &args);
