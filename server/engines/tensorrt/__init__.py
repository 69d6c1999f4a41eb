"""TensorRT and TensorRT for RTX: engines built ahead of time, without a GPU where the library can, and run on one."""
