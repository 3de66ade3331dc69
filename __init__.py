"""denoised: diffusion jobs on industrial gateways, over MQTT."""

__version__ = "0.1.0"
