"""What families add to the keys of a transformer at its real sizes, and files of their own.

Functions of the sizes are additions to a file (:func:`wan`); the others give a whole file.
"""

from dataclasses import replace

from comfyui_wanvideo.tools.tiny.specs import DiTSize, dit, dit_block, norm, numbered, prefixed, weights

SMALL = DiTSize(width=1536, feed_forward=8960, layers=30, text_width=4096)
LARGE = DiTSize(width=5120, feed_forward=13824, layers=40, text_width=4096)
FIVE = DiTSize(width=3072, feed_forward=14336, layers=30, text_width=4096, out_channels=48)


def wan(size, channels=16, *additions, picture=False):
    """A transformer and what a family adds: functions of the sizes."""
    size = replace(size, in_channels=channels, has_image_branch=picture)
    shapes = dit(size)
    for addition in additions:
        shapes.update(addition(size))
    return shapes


def i2v(*additions):
    """Wan 2.1 image to video 14B with additions."""
    return wan(LARGE, 36, *additions, picture=True)


def in_blocks(keys_of, *, numbers=None):
    """Keys in the blocks of a transformer: all of them, or those of `numbers`."""

    def addition(size):
        blocks = range(size.layers) if numbers is None else numbers
        return {
            key: shape
            for number in blocks
            for key, shape in prefixed(f"blocks.{number}.", keys_of(size.width)).items()
        }

    return addition


def _conv(name, size, channels, kernel=(1, 2, 2)):
    return weights(name, size.width, channels, *kernel)


# families_a: control, reference and long video


def recammaster(size):
    keys = in_blocks(
        lambda width: {**weights("cam_encoder", width, 12), **weights("projector", width, width)}
    )
    return keys(size)


def frame_rate(size):
    width = size.width
    return {
        "fps_embedding.weight": (2, width),
        **weights("fps_projection.0", width, width),
        **weights("fps_projection.2", 6 * width, width),
    }


def bindweave(_size):
    return {**weights("text_projection.0", 4096, 3584), **weights("text_projection.2", 4096, 4096)}


def bindweave_hf(_size):
    projector = "condition_embedder.text_projector.linear"
    return {**weights(f"{projector}_1", 4096, 3584), **weights(f"{projector}_2", 4096, 4096)}


def lynx_identity(size):
    keys = in_blocks(
        lambda width: {
            **weights("cross_attn.ip_adapter.to_k_ip", width, width),
            **weights("cross_attn.ip_adapter.to_v_ip", width, width),
            "cross_attn.ip_adapter.registers": (1, 16, width),
        }
    )
    return keys(size)


def lynx_reference(size):
    keys = in_blocks(
        lambda width: {
            **weights("self_attn.ref_adapter.to_k_ref", width, width),
            **weights("self_attn.ref_adapter.to_v_ref", width, width),
        }
    )
    return keys(size)


def lynx_lite(size):
    keys = in_blocks(
        lambda width: {f"cross_attn.ip_adapter.to_{name}_ip.weight": (width, 2048) for name in "kv"},
        numbers=range(0, size.layers, 2),
    )
    return keys(size)


def stand_in(size):
    def keys_of(width):
        return {
            f"self_attn.{name}_loras.{part}.weight": (128, width) if part == "down" else (width, 128)
            for name in "qkv"
            for part in ("down", "up")
        }

    return in_blocks(keys_of)(size)


def minimax_remover():
    """Nothing of text: no embedding, no cross-attention and not the norm before it."""
    shapes = wan(SMALL, 48)
    return {
        key: shape
        for key, shape in shapes.items()
        if not key.startswith("text_embedding.") and "cross_attn." not in key and ".norm3." not in key
    }


def thedenk(factor=8, main_width=5120, layers=6):
    """A dilated controlnet; its blocks are Wan's under diffusers' names."""
    outer = 3 * factor**2
    kernel = (3, factor + 1, factor + 1)
    encoder = {
        **weights("control_encoder.0.0", outer, 3, *kernel),
        **weights("control_encoder.1.0", outer // 2, outer, 3, 3, 3),
        **weights("control_encoder.2.0", outer // 4, outer // 2, 3, 3, 3),
        **{
            key: shape
            for i, part in enumerate((1, 2, 4))
            for key, shape in norm(f"control_encoder.{i}.2", outer // part).items()
        },
    }
    block = {f"attn{n}.to_{name}.weight": (1536, 1536) for n in (1, 2) for name in ("q", "k", "v", "out.0")}
    return {
        **encoder,
        **weights("patch_embedding", 1536, outer // 4 + (48 if factor == 16 else 16), 1, 2, 2),
        **weights("condition_embedder.time_proj", 6 * 1536, 1536),
        **numbered("blocks", [block] * layers),
        **numbered("controlnet_blocks", [{"weight": (main_width, 1536), "bias": (main_width,)}] * layers),
    }


# families_b: audio, characters and continuation


def multitalk(size):
    projection = {
        **weights("audio_proj.proj1", 512, 46080),
        **weights("audio_proj.proj1_vf", 512, 73728),
        **weights("audio_proj.proj2", 512, 512),
        **weights("audio_proj.proj3", 24576, 512),
        **norm("audio_proj.norm", 768),
    }
    keys = in_blocks(
        lambda width: {
            **norm("norm_x", width),
            **weights("audio_cross_attn.q_linear", width, width),
            **weights("audio_cross_attn.kv_linear", 2 * width, 768),
            **weights("audio_cross_attn.proj", width, width),
        }
    )
    return {**projection, **keys(size)}


def humo(size):
    projection = {
        **weights("audio_proj.audio_proj_glob_1.layer", 512, 51200),
        **weights("audio_proj.audio_proj_glob_2.layer", 512, 512),
        **weights("audio_proj.audio_proj_glob_3.layer", 16 * 1536, 512),
        **norm("audio_proj.audio_proj_glob_norm.layer", 1536),
    }

    def keys_of(width):
        attention = "audio_cross_attn_wrapper.audio_cross_attn"
        return {
            **weights(f"{attention}.q", width, width),
            **weights(f"{attention}.k", width, 1536),
            **weights(f"{attention}.v", width, 1536),
            **weights(f"{attention}.o", width, width),
            f"{attention}.norm_q.weight": (width,),
            f"{attention}.norm_k.weight": (width,),
            **norm("audio_cross_attn_wrapper.norm1_audio", width),
        }

    return {**projection, **in_blocks(keys_of)(size)}


def s2v(size):
    width = size.width
    attention = {
        **{key: shape for name in "qkvo" for key, shape in weights(name, width, width).items()},
        "norm_q.weight": (width,),
        "norm_k.weight": (width,),
    }
    return {
        **_conv("cond_encoder", size, 16),
        "casual_audio_encoder.weights": (1, 25, 1, 1),
        "casual_audio_encoder.encoder.padding_tokens": (1, 1, 1, width),
        **weights("casual_audio_encoder.encoder.conv1_local.conv", width, 1024, 3),
        **weights("casual_audio_encoder.encoder.conv1_global.conv", width // 4, 1024, 3),
        **weights("casual_audio_encoder.encoder.conv2.conv", width // 2, width // 4, 3),
        **weights("casual_audio_encoder.encoder.conv3.conv", width, width // 2, 3),
        **weights("casual_audio_encoder.encoder.final_linear", width, width),
        **numbered("audio_injector.injector", [attention] * 12),
        **numbered("audio_injector.injector_adain_layers", [weights("linear", 2 * width, width)] * 12),
        "trainable_cond_mask.weight": (3, width),
        **_conv("frame_packer.proj", size, 16),
        **_conv("frame_packer.proj_2x", size, 16, (2, 4, 4)),
        **_conv("frame_packer.proj_4x", size, 16, (4, 8, 8)),
    }


def animate(size):
    fuser = {
        **weights("linear1_kv", 2 * size.width, size.width),
        **weights("linear1_q", size.width, size.width),
        **weights("linear2", size.width, size.width),
        "q_norm.weight": (128,),
        "k_norm.weight": (128,),
    }
    return {
        **_conv("pose_patch_embedding", size, 16),
        "motion_encoder.dec.direction.weight": (512, 20),
        **weights("face_encoder.out_proj", size.width, 1024),
        "face_encoder.padding_tokens": (1, 1, 1, size.width),
        **numbered("face_adapter.fuser_blocks", [fuser] * 8),
    }


def animate_2():
    """Wan 2.1 I2V with every block one level deeper."""
    deeper = {}
    for key, shape in i2v().items():
        parts = key.split(".", 2)
        deeper[f"blocks.{parts[1]}.block.{parts[2]}" if parts[0] == "blocks" else key] = shape
    return deeper


def ovi(size):
    keys = in_blocks(
        lambda width: {
            **weights("cross_attn.k_fusion", width, width),
            **weights("cross_attn.v_fusion", width, width),
            **norm("cross_attn.pre_attn_norm_fusion", width),
            "cross_attn.norm_k_fusion.weight": (width,),
        }
    )
    return keys(size)


def ovi_audio():
    """The audio half: the blocks of the video half, patches of one frame of sound."""
    shapes = wan(replace(FIVE, out_channels=5), 20, ovi)
    del shapes["patch_embedding.weight"], shapes["patch_embedding.bias"]
    return {**shapes, **weights("patch_embedding.0", FIVE.width, 20, 7)}


def ovi_both():
    """Both halves in one file."""
    video = wan(FIVE, 48, ovi)
    return {**prefixed("video_model.", video), **prefixed("audio_model.", ovi_audio())}


def wan_dancer(size):
    return {**_conv("patch_embedding_global", size, 36), **weights("music_projection", 256, 35)}


def scail(size):
    return _conv("patch_embedding_pose", size, 20)


def scail_2(size):
    return {**scail(size), **_conv("patch_embedding_mask", size, 28)}


def steadydancer(size):
    return {
        **_conv("patch_embedding_fuse", size, 68),
        **_conv("patch_embedding_ref_c", size, 16),
        "condition_embedding_align.cross_attn.in_proj_weight": (384, 128),
        "condition_embedding_align.cross_attn.in_proj_bias": (384,),
    }


def one_to_all(size):
    """Its side networks have blocks of Wan's names without cross-attention."""
    block = {
        key: shape
        for key, shape in dit_block(replace(size, has_image_branch=False)).items()
        if not key.startswith(("cross_attn.", "norm3."))
    }
    return {
        **weights("image_to_cond.conv_in", 16, 32, 3, 3),
        **weights("image_to_cond.conv_out", 16, 16, 3, 3),
        **numbered("controlnet.blocks", [block]),
        **_conv("refextractor.patch_embedding", size, 32),
        **numbered("refextractor.blocks", [block] * 7),
        **in_blocks(lambda width: weights("ref_attn_k_img", width, width))(size),
    }


def realisdance(size):
    return {
        **_conv("add_conv_in", size, 32),
        **weights("add_proj", size.width, size.width),
        **_conv("attn_conv_in", size, 16),
    }


def mtv_crafter(size):
    keys = in_blocks(
        lambda width: {
            **{k: v for name in "qkvo" for k, v in weights(f"motion_attn.{name}", width, width).items()},
            **norm("norm4", width),
        },
        numbers=range(0, size.layers, 4),
    )
    return keys(size)


def longvie(size):
    half = replace(size, width=size.width // 2, feed_forward=6912)
    block = {
        **prefixed("control_blocks_dense.", dit_block(half)),
        **prefixed("control_blocks_sparse.", dit_block(half)),
    }
    return in_blocks(lambda _width: block, numbers=range(12))(size)


def flashvsr(_size):
    return prefixed("LQ_proj_in.", flashvsr_projector())


def flashvsr_projector():
    return {
        **weights("conv1", 2048, 768, 4, 3, 3),
        "norm1.gamma": (2048, 1, 1, 1),
        **weights("conv2", 3072, 2048, 4, 3, 3),
        "norm2.gamma": (3072, 1, 1, 1),
        **weights("linear_layers.0", 1536, 3072),
    }


def longcat(*, is_repackaged):
    """LongCat-Video, in its own names or in those of repackaged files."""
    width = 4096
    names = ("self_attn.q", "self_attn.k", "self_attn.v") if is_repackaged else ("attn.qkv",)
    block = {
        **{k: v for name in names for k, v in weights(name, 3 * width // len(names), width).items()},
        **{f"ffn.w{number}.weight": (11008, width) for number in (1, 3)},
        "ffn.w2.weight": (width, 11008),
    }
    patches = "patch_embedding" if is_repackaged else "x_embedder.proj"
    head = "head.head" if is_repackaged else "final_layer.linear"
    return {
        **weights(patches, width, 16, 1, 2, 2),
        **numbered("blocks", [block] * 48),
        **weights(head, 64, width),
    }


def lynx_original():
    """The lite layers as their authors wrote them: numbered without the model's names."""
    return {f"{number}.to_{name}_ip.weight": (5120, 2048) for number in range(20) for name in "kv"}


def lynx_resampler():
    layer = {"0.to_q.weight": (1280, 1280), "0.to_kv.weight": (2560, 1280), **norm("0.norm1", 1280)}
    return {
        "latents": (1, 16, 1280),
        **weights("proj_in", 1280, 512),
        **numbered("layers", [layer] * 4),
        **weights("proj_out", 5120, 1280),
        **norm("norm_out", 5120),
    }
