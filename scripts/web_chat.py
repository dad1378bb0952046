"""The chat in a browser: baseline and ablated side by side. It listens on this machine alone."""

import os
import socket

from refusal import cli
from refusal.errors import UserError
from refusal.talk import finished
from refusal.talk.web_page import page

_HERE = "127.0.0.1"


def main(args):
    with socket.socket() as probe:  # now, since loading may take minutes
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HERE, args.port))
        except (OSError, OverflowError) as error:
            said = error.strerror if isinstance(error, OSError) else "ports end at 65535"
            raise UserError(f"port {args.port}: {said}: choose another by --port") from None
    study = finished.of_model(args.model) if args.model else finished.of_place(args.model_path)
    combination = study.combination(args.ablate).id

    from refusal.model.conversation import Opened

    opened = Opened(study, args.device_map)
    made, look = page(study, lambda: opened.conversation(args.max_new_tokens), opened.version, combination)
    # gradio asks itself whether it is up, which no proxy of the network can answer
    os.environ["no_proxy"] = f"{os.environ.get('no_proxy') or os.environ.get('NO_PROXY', '')},{_HERE}".lstrip(",")
    cli.log.info("http://%s:%d (Ctrl-C ends it)", _HERE, args.port)
    made.launch(
        server_name=_HERE,
        server_port=args.port,
        share=False,
        ssr_mode=False,
        enable_monitoring=False,
        quiet=True,
        **look,
    )


def parser():
    made = cli.chat_parser(__doc__)
    made.add_argument("--port", type=cli.positive, default=7860)
    return made


if __name__ == "__main__":
    cli.run(main, parser())
