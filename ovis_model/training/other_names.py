"""Keys that other trainers know and this one does not, each with what to use instead.

They are refused with that sentence.  Most are in later configurations of the seed, where they
were read by nothing.
"""

_LENGTHS = "multimodal_max_length and text_max_length say how long a sample may be"
_BASE = "ovis_pretrained_path names the whole base model, language model and vision tower"
_REINFORCEMENT = "it belongs to reinforcement learning (GRPO), which this project does not do"
_BUILT = "the visual tokenizer is the base checkpoint's; nothing of it is built anew"

#: Key to the end of the sentence that starts with it.
INSTEAD: dict[str, str] = {
    "LLM_MODEL": _BASE,
    "VIT_MODEL": _BASE,
    "OVIS25_MODEL": _BASE,
    "llm_name_or_path": _BASE,
    "visual_tokenizer_pretrained_path": _BASE,
    "visual_tokenizer_type": _BUILT,
    "visual_tokenize_function": _BUILT,
    "visual_hidden_stride": _BUILT,
    "visual_use_indicators": _BUILT,
    "visual_tau": _BUILT,
    "visual_max_tau": _BUILT,
    "visual_min_tau": _BUILT,
    "vte_re_init": _BUILT,
    "visual_re_init_layer_begin": _BUILT,
    "conversation_formatter_class": "conversations are written as Qwen3's, which Ovis2.5 speaks",
    "max_seq_length": _LENGTHS,
    "max_length": _LENGTHS,
    "dataset_text_field": "a sample is a conversation; no field of text is chosen",
    "dataset_names": "data_path names one annotation file; put several behind each other in it",
    "dataset_info": "data_path and image_folder say where the data is",
    "data_info_version": "data_path and image_folder say where the data is",
    "dataloader_shuffle": "set train_sampling_strategy to random, sequential or group_by_length",
    "torch_dtype": "set bf16 to true or false",
    "evaluation_strategy": "transformers calls it eval_strategy now",
    "save_safetensors": "weights are always saved as safetensors",
    "cache_dir": "nothing is downloaded, ovis_pretrained_path is a local folder",
    "monitor_step": "set logging_steps",
    "num_generations": _REINFORCEMENT,
    "max_completion_length": _REINFORCEMENT,
    "max_prompt_length": _REINFORCEMENT,
    "beta": _REINFORCEMENT,
}
