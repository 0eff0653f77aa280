// What a device can do at best, measured on itself: the rooflines that times are judged by.
#pragma once

#include <string_view>

namespace damoyolo {

// 0: not measured, or the device has none.
struct Ceilings {
  double copy_bytes_per_second = 0;  // a copy larger than any cache; bytes read and bytes written together
  // Operations per second (two for each multiply-add) of a large matrix product, by the precision of its inputs; on a
  // CPU, of the fastest of a few large convolutions.
  double fp32_flops = 0, tf32_flops = 0, bf16_flops = 0, fp16_flops = 0;
};

// `device`: "auto", "cpu", "cuda" or "cuda:N". `threads`: CPU only; 0: as many as the process may use. Takes a second
// or a few, while nothing else should run. Throws Error when there is no such device.
Ceilings measure_ceilings(std::string_view device, int threads);

}  // namespace damoyolo
