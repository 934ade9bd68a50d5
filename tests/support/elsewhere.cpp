// A second device, "elsewhere", for machines without a GPU: its tensors lie in ordinary memory and its kernels are those
// of the CPU, but as on a GPU a kernel takes tensors of one device alone, and deterministic mode refuses the kernels
// that CUDA has in no deterministic form.
//
// Every operation reaches `fallback`, which runs the CPU's kernel on twins of the tensors (the same memory, called CPU)
// and calls the results this device's again.
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/extension.h>

#include <algorithm>
#include <set>

namespace {

using at::Tensor;
using Maybe = std::optional<Tensor>;

constexpr auto KIND = c10::DeviceType::PrivateUse1;
const c10::Device PLACE(KIND, 0);
const c10::Stream STREAM(c10::Stream::DEFAULT, PLACE);

// Kernels of a GPU that take an index on the CPU beside values on the GPU.
const std::set<std::string> INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_",
                                        "aten::_unsafe_index"};
// Those that do not even take one number of the CPU, a tensor without dimensions.
const std::set<std::string> STRICT = {"aten::cat", "aten::stack", "aten::index_select", "aten::gather", "aten::scatter"};
// Those that CUDA has in no deterministic form.
const std::set<std::string> RANDOM = {
    "aten::nll_loss2d_forward", "aten::nll_loss2d_backward", "aten::_adaptive_avg_pool2d_backward",
    "aten::adaptive_max_pool2d_backward", "aten::fractional_max_pool2d_backward", "aten::grid_sampler_2d_backward",
    "aten::histc", "aten::kthvalue", "aten::median", "aten::put_", "aten::reflection_pad1d_backward",
    "aten::reflection_pad2d_backward", "aten::upsample_bilinear2d_backward", "aten::upsample_bicubic2d_backward",
    "aten::_ctc_loss_backward", "aten::max_unpool2d"};

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes > 0 ? c10::alloc_cpu(bytes) : nullptr;
    return {data, data, &c10::free_cpu, PLACE};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }
};
Allocator allocator;
REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &allocator);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return KIND; }
  c10::Device exchangeDevice(c10::Device) const override { return PLACE; }
  c10::Device getDevice() const override { return PLACE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return STREAM; }
  c10::Stream getDefaultStream(c10::Device) const override { return STREAM; }
  c10::Stream exchangeStream(c10::Stream) const override { return STREAM; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

// Give a storage room for `bytes`, with what it held.
void resize_storage(const c10::Storage& storage, size_t bytes, const void* content, size_t kept) {
  auto fresh = allocator.allocate(bytes);
  if (kept > 0) std::memcpy(fresh.get(), content, kept);
  storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(fresh));
  storage.unsafeGetStorageImpl()->set_nbytes(bytes);
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isAvailable() const override { return true; }
  bool isBuilt() const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    resize_storage(storage, bytes, storage.data(), std::min(bytes, storage.nbytes()));
  }
};
Hooks hooks;

bool here(const Tensor& t) { return t.defined() && t.device().type() == KIND; }

Tensor shaped(Tensor made, const Tensor& like) {
  made.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  return made;
}

// The same memory as a tensor of the CPU.
Tensor twin(const Tensor& t) {
  const auto& own = t.storage();
  c10::Storage storage(c10::Storage::use_byte_size_t(), own.nbytes(),
                       c10::DataPtr(const_cast<void*>(own.data()), c10::Device(c10::kCPU)), c10::GetCPUAllocator(), true);
  auto made = at::detail::make_tensor<at::TensorImpl>(std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), t.dtype());
  if (t.is_conj()) made._set_conj(true);
  if (t.is_neg()) made._set_neg(true);
  return shaped(made, t);
}

// What a kernel of the CPU made, in memory of this device.
Tensor own(const Tensor& r) {
  if (!r.defined()) return r;
  const auto bytes = r.storage().nbytes();
  auto data = allocator.allocate(bytes);
  if (bytes > 0) std::memcpy(data.get(), r.storage().data(), bytes);
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, std::move(data), &allocator, true);
  return shaped(at::detail::make_tensor<at::TensorImpl>(
                    std::move(storage), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), r.dtype()), r);
}

void refuse(bool wrong, const std::string& name, const Tensor& t) {
  TORCH_CHECK(!wrong, "Expected all tensors to be on the same device, but ", name, " got one of shape ", t.sizes(), " on ",
              t.device());
}

// Change a tensor, or each of a list of them.
template <class Change>
void change(c10::IValue& value, const Change& made_of) {
  if (value.isTensor()) {
    value = made_of(value.toTensor());
  } else if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const auto& t : value.toTensorVector()) list.push_back(made_of(t));
    value = c10::IValue(list);
  }
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto& name = op.operator_name().name;
  TORCH_CHECK(!(RANDOM.count(name) && at::globalContext().deterministicAlgorithms()), name,
              " does not have a deterministic implementation on CUDA");
  const auto count = schema.arguments().size();
  const auto first = stack->size() - count;
  std::vector<Tensor> given, twins;
  auto take = [&](const Tensor& t) -> Tensor {
    if (!t.defined()) return t;
    if (!here(t)) {
      refuse(!INDEXING.count(name) && (t.dim() > 0 || STRICT.count(name)), name, t);
      return t;
    }
    for (size_t k = 0; k < given.size(); ++k)
      if (given[k].is_same(t)) return twins[k];
    given.push_back(t);
    twins.push_back(twin(t));
    return twins.back();
  };
  for (size_t i = first; i < stack->size(); ++i) {
    auto& value = (*stack)[i];
    change(value, take);
    if (value.isOptionalTensorList()) {
      c10::List<Maybe> list;
      for (Maybe t : value.toOptionalTensorList()) list.push_back(t ? Maybe(take(*t)) : t);
      value = c10::IValue(list);
    } else if (value.isDevice() && value.toDevice().type() == KIND) {
      value = c10::IValue(c10::Device(c10::kCPU));
    }
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  for (size_t k = 0; k < given.size(); ++k) {  // results that the kernel gave another size
    const auto &old = given[k].storage(), &now = twins[k].storage();
    if (now.data() != old.data() || now.nbytes() != old.nbytes()) resize_storage(old, now.nbytes(), now.data(), now.nbytes());
    shaped(given[k], twins[k]);
  }
  auto give = [&](const Tensor& r) -> Tensor {
    if (!r.defined() || r.device().type() != c10::kCPU) return r;
    for (size_t k = 0; k < twins.size(); ++k)
      if (twins[k].is_same(r)) return given[k];
    for (size_t k = 0; k < twins.size(); ++k)  // a view
      if (r.storage().data() && r.storage().data() == twins[k].storage().data())
        return shaped(at::detail::make_tensor<at::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(given[k].storage()),
                                                              given[k].key_set(), r.dtype()), r);
    return own(r);
  };
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i) change((*stack)[i], give);
}

// What must be said by hand: new memory, copies between devices, reading a number, storages.

using Sizes = c10::SymIntArrayRef;
using Type = std::optional<at::ScalarType>;

at::ScalarType type(Type dtype) { return dtype.value_or(at::typeMetaToScalarType(at::get_default_dtype())); }

Tensor empty(Sizes size, Type dtype, std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>,
             std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &allocator,
                                   c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type(dtype), format);
}

Tensor empty_strided(Sizes size, Sizes stride, Type dtype, std::optional<at::Layout>, std::optional<at::Device>,
                     std::optional<bool>) {
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &allocator,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type(dtype));
}

Tensor copy_from(const Tensor& self, const Tensor& to, bool) {
  (here(to) ? twin(to) : to).copy_(here(self) ? twin(self) : self);
  return to;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& to) {
  if (to.sizes() != self.sizes()) to.resize_(self.sizes());
  return copy_from(self, to, false);
}

at::Scalar item(const Tensor& self) { return at::_local_scalar_dense(twin(self)); }

Tensor& set_view(Tensor& result, c10::Storage storage, c10::SymInt offset, Sizes size, Sizes stride) {
  auto* impl = result.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  return result;
}

Tensor& set_whole(Tensor& result, c10::Storage storage) {
  const c10::SymInt numbers(static_cast<int64_t>(storage.nbytes() / result.dtype().itemsize())), one(1);
  return set_view(result, std::move(storage), 0, Sizes(numbers), Sizes(one));
}

const Tensor& resize(const Tensor& self, Sizes size, std::optional<at::MemoryFormat>) {
  self.unsafeGetTensorImpl()->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  const size_t bytes = (self.numel() + self.storage_offset()) * self.dtype().itemsize();
  if (bytes > self.storage().nbytes()) hooks.resizePrivateUse1Bytes(self.storage(), bytes);
  return self;
}

// Convolutions and gated cells have kernels of their own for devices of this kind.

Tensor only_here(const Tensor& t) {
  refuse(t.defined() && !here(t), "a convolution", t);
  return t.defined() ? twin(t) : t;
}

Tensor convolution(const Tensor& x, const Tensor& w, const Maybe& b, Sizes stride, Sizes padding, Sizes dilation,
                   bool transposed, Sizes output_padding, c10::SymInt groups) {
  at::NoGradGuard guard;
  const Maybe bias = b && b->defined() ? Maybe(only_here(*b)) : std::nullopt;
  return own(at::convolution_symint(only_here(x), only_here(w), bias, stride, padding, dilation, transposed, output_padding,
                                    groups));
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(const Tensor& g, const Tensor& x, const Tensor& w, Sizes stride,
                                                        Sizes padding, Sizes dilation, bool transposed, Sizes output_padding,
                                                        c10::SymInt groups, std::array<bool, 3> mask) {
  at::NoGradGuard guard;
  const c10::SymInt outputs = transposed ? w.sym_size(1) * groups : w.sym_size(0);
  auto [a, b, c] = at::convolution_backward_symint(only_here(g), only_here(x), only_here(w), Sizes(outputs), stride, padding,
                                                   dilation, transposed, output_padding, groups, mask);
  return {own(a), own(b), own(c)};
}

Tensor plus(const Tensor& t, const Maybe& b) { return b && b->defined() ? t + *b : t; }

std::tuple<Tensor, Tensor> gru_cell(const Tensor& x, const Tensor& h, const Tensor& state, const Maybe& bx, const Maybe& bh) {
  auto a = plus(x, bx).chunk(3, 1), b = plus(h, bh).chunk(3, 1);
  auto reset = (a[0] + b[0]).sigmoid(), keep = (a[1] + b[1]).sigmoid(), fresh = (a[2] + reset * b[2]).tanh();
  return {fresh + keep * (state - fresh), reset};
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell(const Tensor& x, const Tensor& h, const Tensor& state, const Maybe& bx,
                                             const Maybe& bh) {
  auto gates = (plus(x, bx) + plus(h, bh)).chunk(4, 1);
  auto next = gates[1].sigmoid() * state + gates[0].sigmoid() * gates[2].tanh();
  return {gates[3].sigmoid() * next.tanh(), next, gates[0]};
}

TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) {
  m.impl("_thnn_fused_gru_cell", &gru_cell);
  m.impl("_thnn_fused_lstm_cell", &lstm_cell);
}

// Conjugated and negated tensors (bits, until something reads them) are made real by a copy, which reads the bits itself.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &item);
  m.impl("set_.source_Storage_storage_offset", &set_view);
  m.impl("set_.source_Storage", &set_whole);
  m.impl("resize_", &resize);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
  m.impl("_thnn_fused_gru_cell", &gru_cell);
  m.impl("_thnn_fused_lstm_cell", &lstm_cell);
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("start", [] { at::RegisterPrivateUse1HooksInterface(&hooks); });
}
