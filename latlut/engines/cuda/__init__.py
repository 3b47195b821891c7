"""What TensorRT needs of CUDA: devices, driver calls, memory, events."""
