"""The teacher: a Hugging Face sequence classifier, fine-tuned here or elsewhere, and its logits."""
