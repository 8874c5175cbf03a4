"""Key lists of released files at their real sizes, and what detection has to find in each; no tensors.

The names and shapes of the transformers and of VACE, Uni3C, the VAEs and CLIP are compared with other modules
in tests/tools. Of other families the keys stand here that are known of them.
"""

from comfyui_wanvideo.tools.tiny.families import (
    Uni3CSize,
    camera,
    control_lora,
    first_and_last_frame,
    reference,
    uni3c,
    vace,
)
from comfyui_wanvideo.tools.tiny.specs import UMT5Size, VAESize, prefixed, umt5, umt5_hf_name, wan21_vae
from comfyui_wanvideo.tools.tiny.vae22 import VAE22Size, wan22_vae
from comfyui_wanvideo.tools.tiny.vision import VisionSize, vision
from comfyui_wanvideo.wanvideo.weights.keys import to_diffusers

from . import family_keys as fk
from .family_keys import FIVE, LARGE, SMALL, i2v, wan

T2V_SMALL = ("Wan 2.1 T2V 1.3B", "Phantom 1.3B", "EchoShot 1.3B")
T2V_LARGE = (
    "Wan 2.1 T2V 14B",
    "Wan 2.2 T2V A14B",
    "Phantom 14B",
    "SkyReels V2 T2V 14B 540P",
    "SkyReels V2 T2V 14B 720P",
    "MoCha 14B",
)
I2V_LARGE = (
    "Wan 2.1 I2V 14B 480P",
    "Wan 2.1 I2V 14B 720P",
    "Wan 2.1 Fun InP 14B",
    "Wan 2.1 Fun InP V1.1 14B",
    "ATI 14B",
    "MAGREF 14B",
    "SkyReels V2 I2V 14B 540P",
    "SkyReels V2 I2V 14B 720P",
    "SkyReels A2 14B",
    "WanMove 14B",
)
I2V_SMALL = ("Wan 2.1 Fun InP 1.3B", "Wan 2.1 Fun InP V1.1 1.3B", "SkyReels V2 I2V 1.3B 540P")
IN_LARGE = {"text", "i2v", "clip image"}

# What is in a file -> (its keys and shapes, its capabilities, the releases it may be)
TRANSFORMERS = {
    "t2v 1.3B": (lambda: wan(SMALL), {"text", "t2v"}, T2V_SMALL),
    "t2v 14B": (lambda: wan(LARGE), {"text", "t2v"}, T2V_LARGE),
    "i2v 14B": (i2v, IN_LARGE, I2V_LARGE),
    "i2v 1.3B": (lambda: wan(SMALL, 36, picture=True), IN_LARGE, I2V_SMALL),
    "flf2v 14B": (
        lambda: i2v(first_and_last_frame),
        {*IN_LARGE, "first and last frame"},
        ("Wan 2.1 FLF2V 14B 720P",),
    ),
    "i2v A14B": (lambda: wan(LARGE, 36), {"text", "i2v"}, ("Wan 2.2 I2V A14B", "Wan 2.2 Fun InP A14B")),
    "ti2v 5B": (lambda: wan(FIVE, 48), {"text", "t2v", "clean first frame"}, ("Wan 2.2 TI2V 5B",)),
    "fun inp 5B": (lambda: wan(FIVE, 100), {"text", "i2v", "clean first frame"}, ("Wan 2.2 Fun InP 5B",)),
    "fun control 1.3B": (
        lambda: wan(SMALL, 48, picture=True),
        {"text", "fun control", "clip image"},
        ("Wan 2.1 Fun Control 1.3B",),
    ),
    "fun control 14B": (
        lambda: wan(LARGE, 48, picture=True),
        {"text", "fun control", "clip image"},
        ("Wan 2.1 Fun Control 14B",),
    ),
    "fun control v1.1 1.3B": (
        lambda: wan(SMALL, 48, reference, picture=True),
        {"text", "fun control", "clip image", "fun reference"},
        ("Wan 2.1 Fun Control V1.1 1.3B",),
    ),
    "fun control v1.1 14B": (
        lambda: wan(LARGE, 48, reference, picture=True),
        {"text", "fun control", "clip image", "fun reference"},
        ("Wan 2.1 Fun Control V1.1 14B",),
    ),
    "fun control A14B": (
        lambda: wan(LARGE, 52, reference),
        {"text", "fun control", "fun reference"},
        ("Wan 2.2 Fun Control A14B",),
    ),
    "fun control 5B": (
        lambda: wan(FIVE, 148, reference),
        {"text", "fun control", "fun reference", "clean first frame"},
        ("Wan 2.2 Fun Control 5B",),
    ),
    "fun camera 1.3B": (
        lambda: wan(SMALL, 32, camera, picture=True),
        {"text", "fun camera", "clip image"},
        ("Wan 2.1 Fun Camera V1.1 1.3B",),
    ),
    "fun camera 14B": (
        lambda: wan(LARGE, 32, camera, picture=True),
        {"text", "fun camera", "clip image"},
        ("Wan 2.1 Fun Camera V1.1 14B",),
    ),
    "fun camera A14B": (
        lambda: wan(LARGE, 36, camera),
        {"text", "fun camera", "i2v"},
        ("Wan 2.2 Fun Camera A14B",),
    ),
    "fun camera 5B": (
        lambda: wan(FIVE, 100, camera),
        {"text", "fun camera", "i2v", "clean first frame"},
        ("Wan 2.2 Fun Camera 5B",),
    ),
    "control lora 1.3B, merged": (
        lambda: wan(SMALL, 32),
        {"text", "control lora"},
        ("Wan 2.1 T2V 1.3B with a control LoRA",),
    ),
    "vace 1.3B": (
        lambda: wan(SMALL, 16, lambda size: vace(size, 15)),
        {"text", "t2v", "vace"},
        ("Wan 2.1 VACE 1.3B", "Wan 2.1 VACE 1.3B Preview"),
    ),
    "vace 14B": (
        lambda: wan(LARGE, 16, lambda size: vace(size, 8)),
        {"text", "t2v", "vace"},
        ("Wan 2.1 VACE 14B", "Wan 2.2 VACE-Fun A14B"),
    ),
    "recammaster": (
        lambda: wan(SMALL, 16, fk.recammaster),
        {"text", "t2v", "recammaster"},
        ("ReCamMaster 1.3B",),
    ),
    "skyreels v2 df 1.3B": (
        lambda: wan(SMALL, 16, fk.frame_rate),
        {"text", "t2v", "fps embedding"},
        ("SkyReels V2 DF 1.3B 540P",),
    ),
    "skyreels v2 df 14B": (
        lambda: wan(LARGE, 16, fk.frame_rate),
        {"text", "t2v", "fps embedding"},
        ("SkyReels V2 DF 14B 540P", "SkyReels V2 DF 14B 720P"),
    ),
    "t2v 14B with stand-in": (lambda: wan(LARGE, 16, fk.stand_in), {"text", "t2v", "stand-in"}, T2V_LARGE),
    "minimax-remover": (fk.minimax_remover, {"minimax remover"}, ("MiniMax-Remover 1.3B",)),
    "unilumos": (lambda: wan(SMALL, 48), {"text", "unilumos"}, ("UniLumos 1.3B",)),
    "bindweave": (lambda: i2v(fk.bindweave), {*IN_LARGE, "bindweave"}, ("BindWeave 14B",)),
    "bindweave, diffusers": (
        lambda: {to_diffusers(key): shape for key, shape in i2v(fk.bindweave_hf).items()},
        {*IN_LARGE, "bindweave"},
        ("BindWeave 14B",),
    ),
    "t2v 14B with lynx": (
        lambda: wan(LARGE, 16, fk.lynx_identity, fk.lynx_reference),
        {"text", "t2v", "lynx identity", "lynx reference"},
        T2V_LARGE,
    ),
    "t2v 14B with lynx lite": (
        lambda: wan(LARGE, 16, fk.lynx_lite),
        {"text", "t2v", "lynx identity"},
        T2V_LARGE,
    ),
    "multitalk 14B": (
        lambda: i2v(fk.multitalk),
        {*IN_LARGE, "multitalk"},
        ("Wan 2.1 I2V 14B with MultiTalk", "Wan 2.1 I2V 14B with InfiniteTalk", "SkyReels V3 A2V 19B"),
    ),
    "humo 1.7B": (lambda: wan(SMALL, 16, fk.humo), {"text", "t2v", "humo"}, ("HuMo 1.7B",)),
    "humo 17B": (lambda: wan(LARGE, 36, fk.humo), {"text", "i2v", "humo"}, ("HuMo 17B",)),
    "s2v": (lambda: wan(LARGE, 16, fk.s2v), {"text", "t2v", "s2v"}, ("Wan 2.2 S2V 14B",)),
    "animate": (lambda: i2v(fk.animate), {*IN_LARGE, "animate"}, ("Wan 2.2 Animate 14B",)),
    "ovi": (lambda: wan(FIVE, 48, fk.ovi), {"text", "t2v", "clean first frame", "ovi"}, ("Ovi 5B",)),
    "ovi, both halves": (fk.ovi_both, {"text", "t2v", "clean first frame", "ovi"}, ("Ovi 5B",)),
    "wan dancer": (lambda: i2v(fk.wan_dancer), {*IN_LARGE, "wan dancer"}, ("WanDancer 14B",)),
    "scail": (
        lambda: wan(LARGE, 20, fk.scail, picture=True),
        {"text", "clip image", "scail"},
        ("SCAIL 14B",),
    ),
    "scail 2": (
        lambda: wan(LARGE, 20, fk.scail_2, picture=True),
        {"text", "clip image", "scail", "scail 2"},
        ("SCAIL-2 14B",),
    ),
    "steadydancer": (lambda: i2v(fk.steadydancer), {*IN_LARGE, "steadydancer"}, ("SteadyDancer 14B",)),
    "one-to-all 1.3B": (
        lambda: wan(SMALL, 16, fk.one_to_all),
        {"text", "t2v", "one-to-all"},
        ("One-to-All 1.3B",),
    ),
    "one-to-all 14B": (
        lambda: wan(LARGE, 16, fk.one_to_all),
        {"text", "t2v", "one-to-all"},
        ("One-to-All 14B",),
    ),
    "realisdance": (lambda: i2v(fk.realisdance), {*IN_LARGE, "realisdance"}, ("RealisDance 14B",)),
    "mtv-crafter": (lambda: i2v(fk.mtv_crafter), {*IN_LARGE, "mtv crafter"}, ("MTV-Crafter 14B",)),
    "longvie 2": (lambda: i2v(fk.longvie), {*IN_LARGE, "longvie"}, ("LongVie 2 14B",)),
    "lucy edit": (lambda: wan(FIVE, 96), {"text", "lucy edit"}, ("Lucy Edit 5B",)),
    "flashvsr": (lambda: wan(SMALL, 16, fk.flashvsr), {"text", "t2v", "flashvsr"}, ("FlashVSR 1.3B",)),
}


_UMT5 = UMT5Size(vocabulary=256384, width=4096, attention_width=4096, heads=64, feed_forward=10240, layers=24)

# What is in a file -> (its keys and shapes, the kind it is, the node that takes it)
OTHER_FILES = {
    "control lora": (lambda: control_lora(SMALL, rank=128), "LoRA", "WanVideo Lora Select"),
    "vace module 1.3B": (lambda: vace(SMALL, 15), "VACE module", "WanVideo VACE Module Select"),
    "vace module 14B": (lambda: vace(LARGE, 8), "VACE module", "WanVideo VACE Module Select"),
    "uni3c": (
        lambda: uni3c(Uni3CSize(main_width=5120, width=1024, feed_forward=8192, layers=20)),
        "Uni3C controlnet",
        "WanVideo Uni3C Controlnet Loader",
    ),
    "thedenk 14B": (fk.thedenk, "Wan controlnet", "WanVideo Controlnet Loader"),
    "thedenk 5B": (lambda: fk.thedenk(16, 3072, 8), "Wan controlnet", "WanVideo Controlnet Loader"),
    "stand-in": (
        lambda: prefixed("diffusion_model.", fk.stand_in(LARGE)),
        "Stand-In adapter",
        "WanVideo Lora Select",
    ),
    "lynx identity layers": (lambda: fk.lynx_identity(LARGE), "Lynx module", "WanVideo Extra Model Select"),
    "lynx reference layers": (lambda: fk.lynx_reference(LARGE), "Lynx module", "WanVideo Extra Model Select"),
    "lynx lite layers, original": (fk.lynx_original, "Lynx module", "WanVideo Extra Model Select"),
    "lynx resampler": (fk.lynx_resampler, "Lynx resampler", "Load Lynx Resampler"),
    "multitalk": (
        lambda: fk.multitalk(LARGE),
        "MultiTalk or InfiniteTalk module",
        "Multi/InfiniteTalk Model Loader",
    ),
    "mtv-crafter": (lambda: fk.mtv_crafter(LARGE), "MTV-Crafter module", "WanVideo Extra Model Select"),
    "flashvsr projector": (fk.flashvsr_projector, "FlashVSR projector", "WanVideo Extra Model Select"),
    "wan-animate-2": (fk.animate_2, "Wan-Animate-2 transformer", None),
    "longcat": (lambda: fk.longcat(is_repackaged=False), "LongCat-Video transformer", None),
    "longcat, repackaged": (lambda: fk.longcat(is_repackaged=True), "LongCat-Video transformer", None),
    "ovi audio": (fk.ovi_audio, "Wan audio transformer (Ovi)", None),
    "clip vit-h": (
        lambda: vision(VisionSize(layers=32, feed_forward=5120)),
        "CLIP image encoder",
        "WanVideo CLIP Text Encoder Loader",
    ),
    "umt5-xxl": (lambda: umt5(_UMT5), "UMT5 text encoder", "WanVideo T5 Text Encoder Loader"),
    "umt5-xxl, transformers": (
        lambda: {umt5_hf_name(key): shape for key, shape in umt5(_UMT5).items()},
        "UMT5 text encoder",
        "WanVideo T5 Text Encoder Loader",
    ),
    "vae 2.1": (lambda: wan21_vae(VAESize(base=96)), "Wan 2.1 VAE", "WanVideo VAE Loader"),
    "vae 2.2": (
        lambda: wan22_vae(VAE22Size(encoder_base=160, decoder_base=256)),
        "Wan 2.2 VAE",
        "WanVideo VAE Loader",
    ),
}
