"""Adapt a frozen pretrained backbone with LoRA to one task and answer its test set. Never imports ray."""
