#include "engine/cpu/convolution.h"

#include <cstring>

#include "engine/core/error.h"

namespace damoyolo::cpu {
namespace {

using dnnl::memory;

memory::data_type type_of(DType dtype) {
  return dtype == DType::BF16 ? memory::data_type::bf16 : memory::data_type::f32;
}

memory::desc dense_nhwc(const Shape& shape, DType dtype) {
  return {{shape.n, shape.c, shape.h, shape.w}, type_of(dtype), memory::format_tag::nhwc};
}

memory::dims weight_dims(const ConvolutionShape& shape) {
  if (shape.groups > 1) return {shape.groups, 1, 1, shape.kernel, shape.kernel};
  return {shape.out.c, shape.in.c, shape.kernel, shape.kernel};
}

bool is_left(Activation act, DType type) { return act == Activation::Silu && type == DType::F32; }

dnnl::primitive_attr attributes(const ConvolutionShape& shape) {
  dnnl::post_ops steps;
  const auto append = [&](dnnl::algorithm activation, float alpha) {
#if DNNL_VERSION_MAJOR >= 3
    steps.append_eltwise(activation, alpha, 0.f);
#else
    steps.append_eltwise(1.f, activation, alpha, 0.f);
#endif
  };
  if (shape.accumulate) steps.append_sum(1.f);
  switch (shape.act) {
    case Activation::None: break;
    case Activation::Relu: append(dnnl::algorithm::eltwise_relu, 0.f); break;
    case Activation::Silu:
      if (!is_left(shape.act, shape.out_type)) append(dnnl::algorithm::eltwise_swish, 1.f);
      break;
  }
  dnnl::primitive_attr attr;
  attr.set_post_ops(steps);
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

dnnl::convolution_forward::primitive_desc describe(const dnnl::engine& engine, const ConvolutionShape& shape) {
  const memory::desc source = dense_nhwc(shape.in, shape.in_type);
  const memory::desc target = dense_nhwc(shape.out, shape.out_type);
  const memory::desc weight(weight_dims(shape), type_of(shape.in_type), memory::format_tag::any);
  const memory::desc bias({shape.out.c}, memory::data_type::f32, memory::format_tag::x);
  const memory::dim pad = (shape.kernel - 1) / 2;
  // At stride 2 and even sizes the last window ends one pixel short of the padding on the right.
  const auto end_pad = [&](int in, int out) { return (out - 1) * shape.stride + shape.kernel - in - pad; };
  const memory::dims strides{shape.stride, shape.stride}, before{pad, pad},
      after{end_pad(shape.in.h, shape.out.h), end_pad(shape.in.w, shape.out.w)};
  const auto kind = dnnl::prop_kind::forward_inference;
  const auto algorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return {engine, kind, algorithm, source, weight, bias, target, strides, before, after, attributes(shape)};
#else
  return {{kind, algorithm, source, weight, bias, target, strides, before, after}, attributes(shape), engine};
#endif
}

}  // namespace

Convolution::Convolution(const dnnl::engine& engine, const ConvolutionShape& shape, const ConvWeights& weights) try
    : leaves_silu_(is_left(shape.act, shape.out_type)),
      description_(describe(engine, shape)),
      primitive_(description_) {
  const memory::desc plain(weight_dims(shape), memory::data_type::f32,
                           shape.groups > 1 ? memory::format_tag::goihw : memory::format_tag::oihw);
  memory given(plain, engine, const_cast<float*>(weights.weight.data()));
  memory packed(description_.weights_desc(), engine);
  dnnl::stream stream(engine);
  dnnl::reorder(given, packed).execute(stream, given, packed);
  stream.wait();

  memory bias(description_.bias_desc(), engine);
  std::memcpy(bias.get_data_handle(), weights.bias.data(), weights.bias.size() * sizeof(float));
  arguments_.emplace(DNNL_ARG_WEIGHTS, packed);
  arguments_.emplace(DNNL_ARG_BIAS, bias);
} catch (const dnnl::error& error) {
  throw Error("oneDNN has no convolution {}x{} stride {} of {} to {} channels in {}: {}", shape.kernel, shape.kernel,
              shape.stride, shape.in.c, shape.out.c, name_of(shape.in_type), error.what());
}

std::string Convolution::implementation() const {
  return description_.impl_info_str() + std::string(leaves_silu_ ? "+silu" : "");
}

void Convolution::bind(const dnnl::engine& engine, void* source, void* target, void* scratchpad) {
  arguments_[DNNL_ARG_SRC] = memory(description_.src_desc(), engine, source);
  arguments_[DNNL_ARG_DST] = memory(description_.dst_desc(), engine, target);
  arguments_[DNNL_ARG_SCRATCHPAD] = memory(description_.scratchpad_desc(), engine, scratchpad);
}

}  // namespace damoyolo::cpu
