"""What a program consists of besides kernels: entry points, threads, header, manifest."""
