"""The tensors of the simulated card have no memory that a fused kernel could read."""


def test_no_fused_kernel_is_used_on_it(on_card):
    assert on_card("support.fused_there") == [{"device": "cuda:0", "used": False}]
