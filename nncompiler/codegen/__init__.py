"""From plans to native code: kernels, the program around them, and the file."""
