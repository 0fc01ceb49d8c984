"""GPUs as XLA's compiler wants them described, to compile for those that are not here.

Numbers are those of NVIDIA's data sheets and of CUDA's device properties.
"""

_TEXT = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared} shared_memory_per_block_optin: {optin}
  threads_per_core_limit: 2048 core_count: {cores} fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {cache} clock_rate_ghz: {clock}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: {major} minor: 0 }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""

# Kind -> its description.
GPUS = {
    "h100": _TEXT.format(
        name="NVIDIA H100 80GB HBM3",
        major=9,
        cores=132,
        fpus=128,
        shared=233472,
        optin=232448,
        bandwidth=3350 * 10**9,
        cache=50 * 2**20,
        clock=1.98,
        memory=80 * 10**9,
    ),
    "a100": _TEXT.format(
        name="NVIDIA A100-SXM4-80GB",
        major=8,
        cores=108,
        fpus=64,
        shared=167936,
        optin=166912,
        bandwidth=2039 * 10**9,
        cache=40 * 2**20,
        clock=1.41,
        memory=80 * 10**9,
    ),
}
