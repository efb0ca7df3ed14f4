// Examples of a dataset with the answers of two arms. Texts become text nodes: none is read as HTML.
panels.gallery = (panel, data) => {
  const choice = (name) => panel.querySelector(`[data-choice=${name}]`);
  const grid = panel.querySelector(".gallery"), about = panel.querySelector(".gallery-about");
  const node = (tag, name, ...children) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...children);
    return element;
  };
  // Texts from data may be written from right to left; each keeps its order to itself.
  const words = (number) => node("bdi", "", data.texts[number]);
  const picture = (number, what) => {
    if (number < 0) return node("span", "gallery-none", "cannot be decoded");
    const image = node("img", "");
    image.src = `data:image/jpeg;base64,${data.images[number]}`;
    image.alt = what;
    image.loading = "lazy";
    return image;
  };
  const number = (value) => (value === null ? "—" : String(value).replace("-", "−"));
  const mark = (right) => node("strong", right ? "gallery-right" : "gallery-wrong", right ? "✓ right" : "✗ wrong");

  function scores(look, example, answer) {
    const finite = answer.scores.map(([, score]) => score).filter((score) => score !== null);
    const low = Math.min(...finite), high = Math.max(...finite);
    return node("ol", "gallery-scores", ...answer.scores.map(([index, score]) => {
      const right = example.truth.includes(index);
      const bar = node("span", "gallery-bar");
      bar.style.width = `${score === null ? 0 : high > low ? 8 + (92 * (score - low)) / (high - low) : 100}%`;
      const name = node("span", "gallery-class", words(index), ...(right ? [" ✓", node("span", "visually-hidden", " true")] : []));
      return node("li", right ? "gallery-true" : "", bar, name, node("span", "gallery-score", number(score === null ? null : score.toFixed(3))));
    }));
  }

  function answers(look, example, line) {
    const name = node("p", "gallery-line", node("bdi", "", data.lines[line]));
    const answer = example.of[line];
    if (!answer) return node("div", "gallery-arm", name, node("p", "note", "not evaluated on these examples"));
    const parts = [name];
    if ("right" in answer) parts.push(node("p", "", answer.right > 0 && answer.right < 1 ? "ties with the true one" : mark(answer.right === 1)));
    if ("answer" in answer) parts.push(node("p", "", words(answer.answer)));
    if (answer.scores) parts.push(scores(look, example, answer));
    if (answer.numbers) parts.push(node("p", "note", look.numbers.map((each, i) => `${each} ${number(answer.numbers[i])}`).join(", ")));
    if (answer.first) {
      const images = look.ranked === "image";
      parts.push(node("ol", images ? "gallery-first gallery-images" : "gallery-first", ...answer.first.map(([index, right], place) =>
        node("li", right ? "gallery-true" : "", images ? picture(index, `answer ${place + 1}`) : words(index), ...(right ? [" ", mark(true)] : [])))));
    }
    return node("div", "gallery-arm", ...parts);
  }

  function card(look, example, lines) {
    const why = example.why.filter((each) => typeof each === "string" || lines.includes(each))
      .map((each) => (typeof each === "string" ? each : `most wrong of ${data.lines[each]}`));
    const truth = node("div", "gallery-truth", node("p", "gallery-why", [...new Set(why)].join(" · ")));
    if ("prompt" in example) truth.append(node("p", "", node("b", "", look.example === "question" ? "question: " : "text: "), words(example.prompt)));
    if (example.truth) {
      const texts = example.truth.flatMap((each, i) => (i ? ["; ", words(each)] : [words(each)]));
      truth.append(node("p", "", node("b", "", "true: "), ...(texts.length ? texts : ["none of the classes"])));
    }
    truth.append(node("p", "note", node("bdi", "", example.id)));
    const image = picture(example.image, look.example === "text" ? "the image of this text" : "the image of this example");
    const sides = [...new Set(lines)].map((line) => answers(look, example, line));
    return node("article", "gallery-card", node("div", "gallery-head", image, truth), node("div", "gallery-arms", ...sides));
  }

  function show() {
    const look = data.looks[Number(choice("look").value)];
    const lines = [Number(choice("left").value), Number(choice("right").value)];
    const which = choice("which").value;
    const wanted = (each) => (which === "wrong" ? lines.includes(each) : which ? each === which : typeof each === "string" || lines.includes(each));
    const examples = look.examples.filter((example) => example.why.some(wanted));
    grid.replaceChildren(...examples.map((example) => card(look, example, lines)));
    about.textContent = `${examples.length} examples. Most wrong: ${look.wrong}.`;
  }

  for (const select of panel.querySelectorAll("[data-choice]")) select.addEventListener("change", show);
  show();
};
